"""The settings of a pytest run: the command line, then the ini."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.assign import read_gpus
from pytest_loraperf.options import ACTIONS, OPTIONS, Option, Settings

NEEDED = {"strict": "baseline", "baseline_days": "baseline", "lint_select": "lint", "lint_ignore": "lint"}
"""Settings that say how another does its work."""
INI_FORMS = {"bool": "write true or false", "linelist": 'write ["…"]', "string": "write it in quotes"}


def add_options(parser: pytest.Parser) -> None:
    """Register each option with the ini value of the same name."""
    group = parser.getgroup("loraperf", "LoRA performance")
    for option in OPTIONS:
        # The default is None here, so that a value in the ini is not hidden by it.
        shape = {"metavar": option.metavar} if option.metavar else {}  # a switch takes none
        group.addoption(
            option.flag,
            dest=f"loraperf_{option.field}",
            action=ACTIONS[option.kind],
            default=None,
            help=f"{option.help} (ini: {option.ini})",
            **shape,
        )
        parser.addini(option.ini, f"default of {option.flag}", type=option.kind)


def read_settings(config: pytest.Config) -> Settings:
    """Resolve the command line, then the ini.

    Raises:
        LoraperfError: a value is not understood; the message names the option.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given = config.getoption(f"loraperf_{option.field}")
        found = given if given is not None else _read_ini(config, option)
        if given is not None or found:
            source = option.flag if given is not None else f"ini value {option.ini}"
            folder = None
            if option.names_a_file:
                # Other files of the command line are made absolute once they are checked.
                started = config.invocation_params.dir if option.is_file else None
                folder = _ini_folder(config) if given is None else started
            values[option.field] = _read(option, found, source, folder)
    settings = Settings(**values)
    _refuse_idle(settings, config.invocation_params.args)
    return settings


def _refuse_idle(settings: Settings, arguments: Sequence[object]) -> None:
    """Refuse what does nothing by itself, where it is typed; an ini or ``addopts`` may keep it for other runs.

    Raises:
        LoraperfError: such an option is among the arguments.
    """
    flags = {option.field: option.flag for option in OPTIONS}
    typed = {str(argument).partition("=")[0] for argument in arguments}
    for field, needed in NEEDED.items():
        if flags[field] in typed and not getattr(settings, needed):
            raise LoraperfError(f"{flags[field]}: it does nothing without {flags[needed]}; give that too")


def _read_ini(config: pytest.Config, option: Option) -> str | bool | Sequence[str]:
    try:
        found: str | bool | Sequence[str] = config.getini(option.ini)
    except (ValueError, pytest.UsageError) as error:  # older pytest raises the one, newer the other
        raise LoraperfError(f"ini value {option.ini}: {error}; {INI_FORMS[option.kind]}") from error
    return found


def _ini_folder(config: pytest.Config) -> Path:
    """Return what paths in the ini are relative to: pytest's own rule for them."""
    return config.inipath.parent if config.inipath is not None else config.invocation_params.dir


def _read(option: Option, found: str | bool | Sequence[str], source: str, folder: Path | None = None) -> Any:
    """Read the text of an option; one that names a file is read in that folder, whatever a test changes to."""

    def read(text: str) -> Any:
        # An empty name stays empty, so that it is refused; what ~ stands for is not known here.
        if folder is not None and text and not text.startswith("~"):
            text = str(folder / text)
        return option.read(text)

    if isinstance(found, bool):
        return found
    try:
        if isinstance(found, str):
            return read(found.strip())
        return tuple(read(text) for text in found)
    except LoraperfError as error:
        raise LoraperfError(f"{source}: {error}") from error


def early_order_mode(config: pytest.Config) -> str:
    """Return ``--loraperf-order`` before the settings are resolved, not checked yet."""
    given = getattr(config.known_args_namespace, "loraperf_order", None)
    return str(given or config.getini("loraperf_order") or Settings().order).strip()


def early_gpus(config: pytest.Config) -> tuple[str, ...]:
    """Return ``--loraperf-gpus`` before the settings are resolved.

    Raises:
        LoraperfError: it is not understood.
    """
    given = getattr(config.known_args_namespace, "loraperf_gpus", None) or config.getini("loraperf_gpus")
    return read_gpus(str(given).strip()) if given else ()
