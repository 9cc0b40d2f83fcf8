"""The pages of the rules are those that the rules make, and what links to them finds them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_loraperf.order.lint.findings import EVERY

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "rules.py"
PAGES = ROOT / "docs" / "rules"


def run(script: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, script, *arguments], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


def test_the_pages_are_up_to_date() -> None:
    assert run(SCRIPT, "--check") == (0, "")


def test_what_is_stale_is_named_and_written(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    pages = tmp_path / "rules"
    assert run(script) == (0, "")
    assert contents(pages) == contents(PAGES)
    (pages / "LRP101.md").write_text("changed")
    (pages / "LRP102.md").unlink()
    (pages / "LRP999.md").write_text("of a rule that is gone")
    stale = "stale: LRP101.md, LRP102.md, LRP999.md; run: python docs/rules.py\n"
    assert run(script, "--check") == (1, stale)
    assert run(script) == (0, "")
    assert contents(pages) == contents(PAGES)


def test_each_code_has_a_page() -> None:
    assert set(contents(PAGES)) == {"README.md", *(f"{code}.md" for code in EVERY)}


@pytest.mark.parametrize("code", EVERY)
def test_a_page_shows_what_the_linter_says_of_each_wrong_sample(code: str) -> None:
    wrong = (PAGES / f"{code}.md").read_text(encoding="utf-8").partition("## Wrong")[2].partition("## Right")[0]
    assert wrong.count("```python\n") == len(re.findall(rf"```text\napp\.py:\d+:\d+: {code} \[", wrong))
    assert bool(wrong) == (code != "LRP104")  # only a run can tell


@pytest.mark.parametrize("page", ["README.md", *(f"docs/rules/{name}" for name in sorted(contents(PAGES)))])
def test_links_lead_to_what_is_there(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([^):#]+\.md)\)", file.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (file.parent / link).is_file()] == []


def test_the_readme_links_the_index_and_each_rule_on_the_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/rules/README.md)" in text
    assert [code for code in EVERY if f"| [{code}](docs/rules/{code}.md) |" in text] == [
        f"LRP{number}" for number in range(101, 111)
    ]
