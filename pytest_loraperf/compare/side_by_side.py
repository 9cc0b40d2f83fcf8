"""``loraperf report --claims``: strategies in several libraries side by side, and which known claims hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from pytest_loraperf.compare.compare import CPU_UNKNOWN, read_positive, run_differences, strategy_differences
from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.report.claims import CLAIMS, REPORTED, Claim, Loads
from pytest_loraperf.report.markdown import code, escape, markdown_row
from pytest_loraperf.report.merging import merge
from pytest_loraperf.report.ranking import Found, ranking
from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.report.table import NONE, one_line
from pytest_loraperf.strategies import REFERENCE
from pytest_loraperf.units import format_size, four_digits
from pytest_loraperf.verdict.types import Status

WORDS: Mapping[Status, str] = {
    Status.PASS: "holds",
    Status.FAIL: "does not hold",
    Status.INCONCLUSIVE: "cannot tell",
}
REPORTED_TITLE = "reported"


def read_libraries(files: Sequence[Path]) -> dict[str, list[Results]]:
    """Read results files, and return them by their library and its version.

    A library may have been measured in several runs, each of other strategies beside the reference.

    Raises:
        LoraperfError: a file is no results file, or two of them cannot stand side by side.
    """
    read = [(path, read_positive(path)) for path in files]
    found: dict[str, list[Results]] = {}
    for path, results in read:
        found.setdefault(_library(path, results), []).append(results)
    for (first, base), (second, new) in combinations(read, 2):
        library = _library(first, base)
        again = [name for name in _own(base) if name in _own(new)] if library == _library(second, new) else []
        if again:
            raise LoraperfError(
                f"--claims: {first} and {second} both have {one_line(again[0])} of {library}; give each strategy "
                "of a library once, or see what changed from one to the other with loraperf compare"
            )
        differences = one_line(", ".join(_differences(base, new)))
        if differences:
            raise LoraperfError(
                f"--claims: {first} and {second} differ in {differences}: what they say would not be that of "
                "their libraries alone; measure both alike"
            )
    return found


def side_by_side(libraries: Mapping[str, Sequence[Results]]) -> Iterator[str]:
    """Yield lines of Markdown: the strategies in each library, the claims, and what to know of both."""
    whole = {library: _whole(runs) for library, runs in libraries.items()}
    judged = {
        library: {found.claim: found for found in ranking(results, CLAIMS)} for library, results in whole.items()
    }
    yield from _table("strategy", [REPORTED_TITLE, *whole], _strategies(whole))
    yield ""
    yield from _table(REPORTED_TITLE, [*whole], _claims(judged))
    yield ""
    for note in _notes(whole, judged, {library: len(runs) for library, runs in libraries.items()}):
        yield f"- {escape(one_line(note))}"
    commands = (results.command for runs in libraries.values() for results in runs)
    for command in dict.fromkeys(filter(None, commands)):
        yield f"- {code(one_line(command))}"


def _library(path: Path, results: Results) -> str:
    return one_line(results.machine.backend) or path.stem


def _own(results: Results) -> list[str]:
    """Return the strategies that a run measured for themselves: the reference is in each."""
    return [name for name, each in results.strategies.items() if name != REFERENCE and each.samples_s]


def _whole(runs: Sequence[Results]) -> Results:
    return runs[0] if len(runs) == 1 else merge(runs, [name for results in runs for name in results.strategies])


def _table(corner: str, columns: Sequence[str], rows: Iterator[tuple[str, list[str]]]) -> Iterator[str]:
    """Yield a table whose rows are a first cell in Markdown and others in plain text."""
    yield markdown_row([corner, *map(escape, columns)])
    yield markdown_row(["---"] * (1 + len(columns)))
    for first, cells in rows:
        yield markdown_row([first, *map(escape, cells)])


def _differences(base: Results, new: Results) -> Iterator[str]:
    differences = list(run_differences(base, new, but=("backend",)))
    yield from differences
    if differences:
        return
    for name in (name for name in base.strategies if name in new.strategies):
        # Steps and schemes are what libraries may differ in.
        yield from strategy_differences(
            name, base.strategies[name], new.strategies[name], ("requests", "adapters")
        )


def _strategies(libraries: Mapping[str, Results]) -> Iterator[tuple[str, list[str]]]:
    measured = dict.fromkeys(name for results in libraries.values() for name in results.strategies)
    for name in [name for name in REPORTED if name in measured] + [
        name for name in measured if name not in REPORTED
    ]:
        found = (results.strategies.get(name) for results in libraries.values())
        yield code(one_line(name)), [_reported(name), *map(_cell, found)]


def _reported(name: str) -> str:
    known = REPORTED.get(name)
    if known is None:
        return NONE
    ratio = NONE if name == REFERENCE else f"{known.seconds / REPORTED[REFERENCE].seconds:.2f}×"
    return f"{known.seconds:g} s, {ratio}, {format_size(known.vram)}"


def _cell(found: StrategyResult | None) -> str:
    if found is None:
        return NONE
    if found.error:
        return "error"
    seconds = f"{four_digits(found.latency.median_s)} s" if found.latency else NONE
    ratio = NONE if found.ratio is None else f"{found.ratio.value:.2f}×{'' if found.ratio.interleaved else '~'}"
    size = NONE if found.vram.runtime_peak is None else format_size(found.vram.runtime_peak)
    share = [] if found.of_limit is None else [f"{found.of_limit:.0%} of the limit"]
    return ", ".join([seconds, ratio, size, *share])


def _claims(judged: Mapping[str, Mapping[Claim, Found]]) -> Iterator[tuple[str, list[str]]]:
    for claim in CLAIMS:
        yield escape(str(claim)), [_outcome(each.get(claim)) for each in judged.values()]


def _outcome(found: Found | None) -> str:
    if found is None:
        return NONE
    figures = found.figures.replace("×", "×~", 1) if found.apart else found.figures
    return f"{WORDS[found.status]}: {figures}"


def _notes(
    libraries: Mapping[str, Results], judged: Mapping[str, Mapping[Claim, Found]], runs: Mapping[str, int]
) -> Iterator[str]:
    every = list(libraries.values())
    first = every[0].machine
    driver = f", driver {first.driver}" if first.driver else ""
    yield f"{every[0].model} on {first.name}{driver}, torch {first.torch}"
    yield f"of a strategy: time of a generation, its ratio to {REFERENCE}, VRAM at run time"
    yield f"{REPORTED_TITLE}: by users, on a card that is not named; of 20 to 30 %, say, the lower end is held"
    yield from _of_runs(runs)
    ratios = [each.ratio for results in every for each in results.strategies.values() if each.ratio]
    found = [each for of in judged.values() for each in of.values()]
    if any(each.of_limit is not None for results in every for each in results.strategies.values()):
        yield "of the limit: the least time by the machine's rates, over the median; 100 % cannot be beaten"
    if any(not ratio.interleaved for ratio in ratios) or any(each.apart for each in found):
        yield "~ not measured in the same rounds"
    if any(isinstance(each.claim, Loads) for each in found):
        yield "loading: the step that attaches the LoRA, without what a quantize step before it has wrapped"
    if any(claim not in of for of in judged.values() for claim in CLAIMS):
        yield f"{NONE} not measured"
    if first.memory_kind != "VRAM":
        yield f"VRAM here: {first.memory_kind} (no CUDA), so no claim about VRAM is judged"
    if first.device == "cpu" and sum(runs.values()) > 1:
        yield CPU_UNKNOWN
    for library, results in libraries.items():
        yield from _of_library(library, results)


def _of_runs(runs: Mapping[str, int]) -> Iterator[str]:
    """Yield what to know of each library's runs, of which it has so many."""
    several = [f"{library} was measured in {count} runs" for library, count in runs.items() if count > 1]
    if several:
        yield f"{', '.join(several)}: a ratio is within one of them, or not in the same rounds"
    elif len(runs) > 1:
        yield "each library was measured in a run of its own, which its ratios are within"


def _of_library(library: str, results: Results) -> Iterator[str]:
    schemes: dict[str, list[str]] = {}
    for name, each in results.strategies.items():
        if each.scheme:
            schemes.setdefault(each.scheme, []).append(name)
    for scheme, names in schemes.items():
        yield f"{library} quantizes by {scheme} in {', '.join(names)}"
    for name, each in results.strategies.items():
        if each.error:
            yield f"error in {name} with {library}: {each.error}"
