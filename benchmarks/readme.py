"""Write the measured blocks of the documents from committed results: ``python -m benchmarks.readme [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap

from benchmarks.assumptions import KIND as ASSUMPTIONS
from benchmarks.assumptions import Assumptions
from benchmarks.assumptions import table as assumptions_table
from benchmarks.measuring_tables import overhead_lines, workers_table
from benchmarks.peers import KIND as PEERS
from benchmarks.peers import Comparison, table
from benchmarks.vram_tables import cap_table, forecast_table, offload_table
from pytest_loraperf.advise.choose import advice_lines, choices
from pytest_loraperf.advise.code import Setting, code_for
from pytest_loraperf.calibrate.calibration import read_calibration
from pytest_loraperf.calibrate.files import read_file
from pytest_loraperf.calibrate.table import markdown_lines
from pytest_loraperf.commands.effect import effect_lines
from pytest_loraperf.commands.forecast import forecast_lines
from pytest_loraperf.compare.side_by_side import read_libraries, side_by_side
from pytest_loraperf.models import parse_model
from pytest_loraperf.report.markdown import markdown_table, replace_block
from pytest_loraperf.report.results import read_results
from pytest_loraperf.report.terminal import summary
from pytest_loraperf.request import Request
from pytest_loraperf.strategies import REFERENCE, StepKind, Strategies

ROOT = Path(__file__).parents[1]
WIDTH = 118


def _run(file: Path) -> str:
    results = read_results(file)
    lines = "\n".join(summary(results, WIDTH))
    return f"```text\n$ {results.command}\n{lines}\n```"


def _budget(file: Path) -> str:
    results = read_results(file)
    held = [each for each in results.verdicts if each.code == "gpu-budget"]
    said = [f"{each.status} {each.nodeid}: {each.message}" for each in held]
    lines = "\n".join(line for each in said for line in wrap(each, WIDTH, subsequent_indent="  "))
    return f"```text\n$ {results.command}\n{lines}\n```"


def _table(file: Path) -> str:
    results = read_results(file)
    return f"{markdown_table(results)}\n- `{results.command}`"


def _compiled(file: Path) -> str:
    """Show the strategies that are compiled, and those that they are compared with."""
    results = read_results(file)
    compiled = {name for name, each in results.strategies.items() if StepKind.COMPILE.value in each.steps}
    kept = {name: each for name, each in results.strategies.items() if name in {REFERENCE, "fused", *compiled}}
    return f"{markdown_table(replace(results, strategies=kept))}\n- `{results.command}`"


def _effect(file: Path) -> str:
    results = read_results(file)
    lines = "\n".join(effect_lines(results, WIDTH))
    return f"```text\n$ {results.command}\n{lines}\n```"


def _forecast(file: Path) -> str:
    results = read_results(file)
    lines = "\n".join(forecast_lines(results, WIDTH))
    return f"```text\n$ {results.command}\n{lines}\n```"


def _advice(file: Path) -> str:
    """Show what is recommended, and the code of the first of it."""
    results = read_results(file)
    first = next(iter(choices(results).values()))
    found = results.strategies[first]
    strategy = Strategies()[first].with_scheme(str(found.scheme)).with_scheme("stream", StepKind.OFFLOAD)
    setting = Setting(parse_model(results.model), (), Request(**results.request), results.machine.device)
    lines = list(advice_lines(results, {first: code_for(strategy, setting)}))
    shown = [
        part
        for line in lines[: lines.index("")]
        for part in wrap(line, WIDTH, subsequent_indent="  ", replace_whitespace=False)
    ]
    code = lines[lines.index("") : lines.index('image.save("output.png")') + 1]
    return "\n".join(["```text", f"$ {results.command}", "…", *shown, *code, "```"])


def _calibration(*files: Path) -> str:
    """Show what was recorded, or where nothing was, the simulated noise."""
    lines = []
    for file in files:
        found = read_calibration(file)
        recorded = tuple(tally for tally in found.tallies if tally.source == "recorded")
        lines += [*markdown_lines(replace(found, tallies=recorded or found.tallies)), f"- `{found.command}`", ""]
    return "\n".join(lines[:-1])


def _libraries(*files: Path) -> str:
    return "\n".join(side_by_side(read_libraries(files)))


def _peers(file: Path) -> str:
    rows: Comparison = read_file(file, PEERS, Comparison)
    return "\n".join(table(rows.rows))


def _assumptions(file: Path) -> str:
    found: Assumptions = read_file(file, ASSUMPTIONS, Assumptions)
    command = f"python benchmarks/assumptions.py --json {file.relative_to(ROOT).as_posix()}"
    return "\n".join([*assumptions_table(found.rows), "", f"- `{command}`"])


@dataclass(frozen=True)
class Block:
    """A named place in a document, the results that it shows, and how."""

    document: str
    name: str
    files: tuple[str, ...]
    render: Callable[..., str]

    def shown(self) -> str:
        """Return its text made anew."""
        return self.render(*(ROOT / "benchmarks" / file for file in self.files))


NOISE = "docs/noise.md"
VRAM = "docs/explanation/vram.md"
LIBRARIES = "docs/explanation/libraries.md"
# In DiffSynth 1.1 each strategy with its own offloading is a run of its own.
THREE_LIBRARIES = ("diffsynth", "diffusers", "diffsynth1", "diffsynth1-low_vram", "diffsynth1-low_vram_optimized")
BLOCKS = (
    Block("README.md", "demo", ("cpu/demo.json",), _run),
    Block("README.md", "gate", ("h200/gate.json",), _table),
    Block("README.md", "compiled", ("h200/demo.json",), _compiled),
    Block("README.md", "budget", ("h100/budget.json",), _budget),
    Block("README.md", "advice", ("cpu/advice.json",), _advice),
    Block("README.md", "effect", ("cpu/effect.json",), _effect),
    Block("README.md", "forecast", ("cpu/forecast.json",), _forecast),
    Block("README.md", "calibration", ("h100/calibration-full.json",), _calibration),
    Block(VRAM, "forecast-held", ("h200/vram_peaks.json", "cpu/forecast-all.json"), forecast_table),
    Block(VRAM, "offload", ("h200/offload.json",), offload_table),
    Block(VRAM, "cap", ("h100/cap.json",), cap_table),
    Block("docs/how-to/xdist.md", "workers", ("h100/workers.json",), workers_table),
    Block(LIBRARIES, "libraries", tuple(f"h200/libraries-{name}.json" for name in THREE_LIBRARIES), _libraries),
    Block(NOISE, "recorded", ("h100/calibration-full.json", "h100/calibration-short.json"), _calibration),
    Block(NOISE, "peers", ("h100/peers.json",), _peers),
    Block(NOISE, "simulated", ("cpu/calibration.json",), _calibration),
    Block(NOISE, "overhead", ("h100/overhead.json",), overhead_lines),
    Block(NOISE, "assumptions", ("cpu/assumptions.json",), _assumptions),
)


def rendered() -> dict[Path, str]:
    """Return each document with its blocks made anew from their results files."""
    texts: dict[Path, str] = {}
    for block in BLOCKS:
        document = ROOT / block.document
        text = texts.get(document) or document.read_text(encoding="utf-8")
        texts[document] = replace_block(text, block.name, block.shown())
    return texts


def main() -> int:
    """Rewrite the documents, or with ``--check`` say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something would change")
    given = parser.parse_args()
    changed = {path: text for path, text in rendered().items() if path.read_text(encoding="utf-8") != text}
    if given.check:
        return int(bool(changed))
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
