"""The page: what it says, that it needs nothing else, and that no name breaks it."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_results import EIGHT, GIB, STRATEGIES, with_strategy

from pytest_loraperf.compare.history import Run, history
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.page.tradeoff import points
from pytest_loraperf.page.write import page, write_page
from pytest_loraperf.report.results import ComparisonRecord, LoraCoverage, Results, VerdictRecord

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b",
    "two\nlines\x1b[31m\r\x00\ud800",
    "::error file=x::gone",
    "{{ 7 * 7 }}{% raw %}",
    '"><img src=x onerror=alert(1)>',
    "datum.x'); alert(1)//",
    "]]></svg><script>",
    "x" * 10_000,
    "",
)
NO_CHARTS = replace(EIGHT, strategies={})


@pytest.fixture(scope="module")
def eight() -> str:
    return page(EIGHT)


class Outline(HTMLParser):
    """The elements, what they refer to, and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.feed(re.sub(r"<(style|svg)\b.*?</\1>", "", text, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += [] if tag == "wbr" else [" "]
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def test_it_says_what_was_run_and_what_came_of_it() -> None:
    words = Outline(page(replace(EIGHT, gpu_budget=24 * GIB))).words
    for said in (
        "synthetic:full on H100",
        "Machine H100 (cuda:0)",
        "Driver 580.1",
        "Prompt a ghost",
        "Request height 1024, extra {'zero_cond_t': True}",
        "Software torch 2.11.0, diffsynth 2.1.12, pytest-loraperf 0.1.0",
        "Budget 24 GB (25769803776 bytes)",
        "Command loraperf bench",
        "Verdicts 2 failed 2 cannot tell, 2 passed, 1 skipped",
        "Fastest 490.0 ms fused_then_quantize",
        "Smallest 1.9 GB low_vram_optimized",
        "Budget 24 GB 4 of 6 right strategies fit, set-up included",
        "✗ quantize_then_fuse is a mistake: the LoRA fades",
        "7 rounds of each",
        "low_vram runs in 8 GB ✓ holds here",
        "✕ FAIL gpu-budget over the budget test_a.py::test_any",
        "This is one run.",
    ):
        assert said in words


def test_what_gives_another_output_is_neither_the_fastest_nor_the_smallest_nor_fits() -> None:
    lost = VerdictRecord(
        nodeid="t.py::test", code="lora-effect", status="FAIL", message="gone", strategy="fused_then_quantize"
    )
    control = {"no_lora": STRATEGIES["low_vram_optimized"]}
    found = replace(EIGHT, gpu_budget=24 * GIB, verdicts=(lost,), strategies={**STRATEGIES, **control})
    words = Outline(page(found)).words
    assert "Fastest 863.0 ms fused" in words
    assert "3 of 5 right strategies fit" in words
    front = {each.name for each in points(found) if each.front}
    assert not front & {"fused_then_quantize", "no_lora"}


def test_what_failed_is_open_and_first(eight: str) -> None:
    opened = re.findall(r'<details class="group"( open)?>\s*<summary><span class="badge (\w+)">', eight)
    assert opened == [(" open", "fail"), (" open", "inconclusive"), ("", "pass"), ("", "skipped")]


def test_a_verdict_has_its_detail_and_the_stricter_marker() -> None:
    verdict = VerdictRecord(
        nodeid="t.py::test",
        code="vram",
        status="PASS",
        message="fits",
        tighter='@pytest.mark.vram_budget("2GB")',
        detail=("setup    2.3 MB", "runtime  2.59 MB"),
    )
    found = page(replace(NO_CHARTS, verdicts=(verdict,)))
    assert "setup    2.3 MB\nruntime  2.59 MB\n</pre>" in found
    assert "It passed by far; it could be: <code>@pytest.mark.vram_budget(&#34;2GB&#34;)</code>" in found


def test_a_status_of_another_version_is_shown() -> None:
    verdict = VerdictRecord(nodeid="t.py::test", code="vram", status="MAYBE", message="who knows")
    words = Outline(page(replace(NO_CHARTS, verdicts=(verdict,)))).words
    assert "Verdicts 1 MAYBE" in words
    assert "who knows" in words


def test_layers_that_lost_the_lora_are_named(eight: str) -> None:
    lora = LoraCoverage(2, 2, 64, 0.1, 0.5, {"block.0": 0.1, "block.1": 0.95, "block.2": None})
    found = page(with_strategy("fused", lora=lora))
    assert "     nan  block.2\n   0.100  block.0\n   0.950  block.1\n" in found
    assert "the layers with least of the LoRA" not in eight


def test_what_was_measured_together() -> None:
    taken = ComparisonRecord(
        arms=("mine", "other"),
        interleaved=False,
        samples_s={"mine": (1.0, 2.0, None), "other": (3.0, 3.0, 3.0)},
        dropped=(2,),
        errors={"mine": "ValueError: no"},
    )
    words = Outline(page(replace(NO_CHARTS, comparisons=(taken,)))).words
    assert (
        "mine 1.500 s · other 3.000 s 3 blocks, in turns; 1 of them throttled and left out; "
        "mine raised ValueError: no" in words
    )


def test_a_run_that_measured_nothing_says_so() -> None:
    empty = Results(
        plugin_version="0.1.0",
        created="",
        machine=replace(EIGHT.machine, device="", name="", driver=None, torch="", backend=""),
        model="",
        request={},
        strategies={},
    )
    words = Outline(page(empty)).words
    assert "nothing was measured" in words
    assert "No strategy was built: give a test a strategy's fixture" in words
    assert "No gate was judged" in words


def test_it_needs_no_script_no_network_and_no_other_file(eight: str) -> None:
    found = Outline(eight)
    assert not {"script", "iframe", "object", "embed", "img", "base", "form"} & set(found.tags)
    references = {
        value for _, name, value in found.attributes if name in ("href", "src", "srcset", "action", "data")
    }
    assert references == {"data:,"}
    assert not [name for _, name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert set(re.findall(r"https?://[^\"' ]+", eight)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"url\((?!#)|@import", eight)


def test_only_its_own_style_is_allowed(eight: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", eight, re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', eight)
    hashed = b64encode(sha256(style.encode()).digest()).decode()
    assert html.unescape(policy) == (
        f"default-src 'none'; style-src 'sha256-{hashed}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def hostile(*names: str) -> Results:
    """Results in which all that others name has these names."""
    fused = STRATEGIES["fused"]
    strategies = {
        name: replace(fused, mistake=name, error=name, steps=(name,), scheme=name, scheme_reason=name)
        for name in names
    }
    first, every = names[0], "".join(names)
    return replace(
        EIGHT,
        machine=replace(EIGHT.machine, name=every, driver=every, backend=every, memory_kind=every),
        model=first,
        command=every,
        request={"prompt": every, **dict.fromkeys(names, every)},
        strategies={
            **strategies,
            "standard_lora": STRATEGIES["standard_lora"],
            first: replace(strategies[first], error=None),
        },
        verdicts=tuple(
            VerdictRecord(
                nodeid=name, strategy=name, code=name, status="FAIL", message=name, tighter=name, detail=(name, "")
            )
            for name in names
        ),
        comparisons=(
            ComparisonRecord(
                names,
                interleaved=True,
                samples_s=dict.fromkeys(names, (1.0,)),
                errors=dict(zip(names, names, strict=True)),
            ),
        ),
        notes=names,
    )


def test_hostile_names_are_text(tmp_path: Path) -> None:
    results = hostile(*HOSTILE)
    groups = history([Run(HOSTILE[0], date(1), results), Run(HOSTILE[1], date(2), results)])
    text = page(results, groups)
    found = Outline(text)
    drawn = Outline("".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL)).replace("svg", "g"))
    assert not {"script", "img", "iframe"} & {*found.tags, *drawn.tags}
    assert not [name for _, name, _ in (*found.attributes, *drawn.attributes) if name.startswith("on")]
    for shown in (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}{% raw %}",
        "two lines?[31m ??",
    ):
        assert shown in found.words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)
    assert not any(line.startswith("::") for line in text.splitlines())
    write_page(tmp_path / "page.html", results, groups)
    assert (tmp_path / "page.html").stat().st_size < 600_000


def date(day: int) -> datetime:
    return datetime(2026, 11, day, tzinfo=UTC)


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LoraperfError) as caught:
        write_page(tmp_path, NO_CHARTS)
    assert str(caught.value) == (
        f"report {tmp_path}: cannot be written: it is there and no regular file; "
        "name a file in a folder that can be written"
    )
