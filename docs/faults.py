"""Write the fault matrix from the markers of its tests: ``python docs/faults.py [--check]``."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
TESTS = ROOT / "tests" / "faults"
HEAD = """\
<!-- Written by docs/faults.py from the tests in tests/faults; change a test's marker instead. -->

# What happens when something fails

Each case is a run of pytest in a process of its own that is struck at one moment. Each checks that

- what was measured before is in the results or in the journal beside them,
- the lock of the device and that of the baseline can be taken,
- the verdict of every other test is right, and the test that was struck is no pass,
- it is said in a line, without a traceback of the plugin: by that run, or where it was killed by the next.

`FILE.partial` is the journal: beside the file of `--loraperf-json`, the results as they are so far, written whole
after each test that measured something and removed once the results are written. It is a results file as any
other, with a note that the run had not ended; the next run with the same file moves it aside (`FILE.partial-1`)
and says so. What is lost is the test that was being measured, or its last phase. A run without `--loraperf-json`
keeps nothing. Keeping takes about 8 ms of processor time a test in a run of 100 measured tests, and 16 in one of
300.

| what fails | when | what happens | cases |
| --- | --- | --- | ---: |
"""
TAIL = """
The same suite runs on any Linux machine, without a GPU. Memory that runs out and a driver that is lost are
torch's and NVML's own errors, raised where a GPU would. A read-only folder and one of the full disks are real
ones, mounted for the run where the system lets a process do so, else skipped; the other full disks are the
system's error, raised where the file is flushed.
"""

Row = tuple[str, str, str]


class Cases:
    """Counts the cases of each row, in the order in which the tests stand."""

    def __init__(self) -> None:
        self.rows: Counter[Row] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("fault"):
                what, when, then = mark.args
                self.rows[what, when, then] += 1


def collected() -> Counter[Row]:
    """Return how many cases each row has.

    Raises:
        RuntimeError: the tests cannot be collected.
    """
    cases, said = Cases(), io.StringIO()
    arguments = [
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--rootdir={ROOT}",
        str(TESTS),
    ]
    with contextlib.redirect_stdout(said):
        status = pytest.main(arguments, plugins=[cases])
    if status != pytest.ExitCode.OK:
        raise RuntimeError(f"{TESTS} cannot be collected:\n{said.getvalue()}")
    return cases.rows


def rendered(rows: Counter[Row]) -> str:
    """Return the page."""
    lines = [f"| {what} | {when} | {then} | {count} |" for (what, when, then), count in _grouped(rows)]
    total = f"| | | **{len(rows)} rows** | **{rows.total()}** |"
    return HEAD + "\n".join([*lines, total]) + "\n" + TAIL


def _grouped(rows: Counter[Row]) -> list[tuple[Row, int]]:
    order = list(dict.fromkeys(what for what, _, _ in rows))
    return sorted(rows.items(), key=lambda pair: order.index(pair[0][0]))


def main() -> int:
    """Rewrite the page, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something would change")
    given = parser.parse_args()
    text = rendered(collected())
    if not given.check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
    if stale:
        print(f"stale: {PAGE.name}; run: python docs/faults.py")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
