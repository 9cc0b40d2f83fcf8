"""The pages build into a site, and a link that leads nowhere ends the build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def build(source: Path, out: Path) -> tuple[int, str]:
    (options,) = re.findall(r"sphinx-build (.*) docs build/docs", (ROOT / "Makefile").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "sphinx", *options.split(), str(source), str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    assert build(DOCS, tmp_path) == (0, "")
    assert {page.relative_to(tmp_path).as_posix() for page in tmp_path.rglob("*.html")} >= {
        page.removesuffix(".md") + ".html" for page in PAGES
    }


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[gone](gone.md)", "'gone.md'"),
        ("[gone](other.md#gone)", "not found in doc 'other': 'gone'"),
        ("[gone](#gone)", "'gone'"),
        ("[gone](../src/gone.py)", "'../src/gone.py'"),
        ("![gone](gone.png)", "gone.png"),
    ],
)
def test_a_link_to_nowhere_ends_the_build(tmp_path: Path, link: str, said: str) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text(
        f"# Index\n\n```{{toctree}}\nother\n```\n\n[there](other.md#a-title)\n\n{link}\n"
    )
    (source / "other.md").write_text("# Other\n\n## A title\n\ntext\n")
    status, warned = build(source, tmp_path / "out")
    assert status == 1
    (line,) = [each for each in warned.splitlines() if "WARNING" in each]
    assert said in line
    (source / "index.md").write_text("# Index\n\n```{toctree}\nother\n```\n\n[there](other.md#a-title)\n")
    assert build(source, tmp_path / "out") == (0, "")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index.md" and "rules/LRP" not in page])
def test_the_index_leads_to_every_page(page: str) -> None:
    assert f"]({page})" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files(page: str) -> None:
    """They are followed on GitHub too, where no build looks at them."""
    file = DOCS / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL))
    assert [link for link in links if not (file.parent / link).exists()] == []


def test_the_readme_leads_to_the_index() -> None:
    assert "(docs/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
