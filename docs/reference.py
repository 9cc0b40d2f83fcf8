"""Write the reference from the code: ``python -m docs.reference [--check]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from docs.generate.command_page import command
from docs.generate.pytest_pages import fixtures_page, hooks, markers, options, verdicts
from docs.generate.python_page import python
from docs.generate.results_page import SCHEMA_FILE, results_page, schema

PAGES = Path(__file__).with_suffix("")
RENDER = {
    "markers.md": markers,
    "options.md": options,
    "fixtures.md": fixtures_page,
    "hooks.md": hooks,
    "verdicts.md": verdicts,
    "command.md": command,
    "python.md": python,
    "results.md": results_page,
    SCHEMA_FILE: schema,
}


def stale(folder: Path = PAGES) -> list[str]:
    """Return the names of the files that are not as the code makes them, those that are too many included."""
    before = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*")}
    after = {name: render() for name, render in RENDER.items()}
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def write(folder: Path = PAGES) -> None:
    """Write what is stale, and remove what is too much."""
    folder.mkdir(exist_ok=True)
    for name in stale(folder):
        if name in RENDER:
            (folder / name).write_text(RENDER[name](), encoding="utf-8")
        else:
            (folder / name).unlink()


def main() -> int:
    """Rewrite the pages, or with ``--check`` say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something would change")
    if not parser.parse_args().check:
        write()
        return 0
    found = stale()
    if found:
        print(f"stale: {', '.join(found)}; run: python -m docs.reference")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
