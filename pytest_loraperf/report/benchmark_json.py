"""The samples in the JSON of pytest-benchmark, which github-action-benchmark and Bencher read.

github-action-benchmark (``extract.ts``) looks at ``fullname`` and, in ``stats``, at ``ops``, ``mean``, ``stddev``
and ``rounds``; Bencher (its adapter ``python_pytest``) at ``fullname``, ``median`` and ``iqr``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from typing import Any

from pytest_loraperf.commit import current_commit
from pytest_loraperf.host import cpu_name
from pytest_loraperf.report.naming import Built, numbered, plain
from pytest_loraperf.report.results import Results, StrategyResult
from pytest_loraperf.report.schema import to_plain
from pytest_loraperf.report.table import one_line, shortened
from pytest_loraperf.writable import write_whole

LONGEST_NAME = 1024
"""Bytes of the name of a benchmark that Bencher takes."""
CUT_NAME = 200
"""Characters that are kept of a longer one."""
NOTHING = "?"
"""What stands for a name of which nothing can be shown."""
FENCE = 1.5
"""Tukey's: what is further than so many interquartile ranges from the quartiles is an outlier."""
QUARTILES = 4
NO_COMMIT: Mapping[str, Any] = {
    "id": "unversioned",
    "time": None,
    "author_time": None,
    "dirty": False,
    "project": "",
    "branch": "(unknown)",
}


def write_benchmarks(path: Path, results: Results) -> None:
    """Write the file whole or not at all; folders that are missing are made.

    Raises:
        LoraperfError: it cannot be written.
    """
    commit = current_commit(Path.cwd())
    data = benchmark_json(results, asdict(commit) if commit else NO_COMMIT)
    write_whole(path, "benchmarks", json.dumps(data, indent=1, allow_nan=False) + "\n")


def benchmark_json(results: Results, commit: Mapping[str, Any]) -> dict[str, Any]:
    """Return what pytest-benchmark's ``--benchmark-json`` would write: each strategy, each callable of a test."""
    found: dict[str, Any] = to_plain(
        {
            "machine_info": _machine_info(results),
            "commit_info": commit,
            "benchmarks": [*_strategies(results), *_callables(results)],
            "datetime": datetime.fromisoformat(results.created).isoformat(),
            "version": f"pytest-loraperf {results.plugin_version}",
        }
    )
    return found


def statistics(samples: Sequence[float]) -> dict[str, Any]:
    """Return the fields of pytest-benchmark's ``stats`` for at least one sample, in seconds.

    The quartiles are those of Python's ``statistics.quantiles(method="inclusive")``.
    """
    data = sorted(samples)
    q1, _, q3 = quantiles(data, n=QUARTILES, method="inclusive") if len(data) > 1 else data * 3
    middle, spread, total = mean(data), stdev(data) if len(data) > 1 else 0.0, sum(data)
    low, high = q1 - FENCE * (q3 - q1), q3 + FENCE * (q3 - q1)
    within = [each for each in data if low <= each <= high] or data
    far = sum(not middle - spread <= each <= middle + spread for each in data)
    outside = sum(not low <= each <= high for each in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": middle,
        "stddev": spread,
        "rounds": len(data),
        "median": median(data),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": within[0],
        "hd15iqr": within[-1],
        "ops": len(data) / total if total else 0.0,
        "total": total,
        "data": list(samples),
        "iterations": 1,
    }


def _strategies(results: Results) -> Iterator[dict[str, Any]]:
    first = Built.first(results)
    for label, found in results.strategies.items():
        if found.samples_s:
            built = Built.of(found, results)
            model = built.model
            name = plain(label) + built.beside(first._replace(model=model)) + numbered(label)
            extra = _extra(results, label, found)
            params = {"model": model, "strategy": plain(label)}
            yield _benchmark(model, name, f"{model}::{name}", found.samples_s, params, extra)


def _callables(results: Results) -> Iterator[dict[str, Any]]:
    """Yield each callable of each test once, with the longest series of its samples."""
    longest: dict[tuple[str, str], tuple[float, ...]] = {}
    for rounds in results.comparisons:
        for arm, nodeid in rounds.tests.items():
            taken = enumerate(rounds.samples_s.get(arm, ()))
            samples = tuple(each for number, each in taken if each is not None and number not in rounds.dropped)
            if len(samples) > len(longest.get((nodeid, arm), ())):
                longest[nodeid, arm] = samples
    for (nodeid, arm), samples in longest.items():
        yield _benchmark(nodeid, arm, f"{nodeid}::{arm}", samples, None, {})


def _benchmark(
    group: str,
    name: str,
    fullname: str,
    samples: Sequence[float],
    params: Mapping[str, str] | None,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "group": readable(group),
        "name": readable(name),
        "fullname": readable(fullname),
        "params": params,
        "param": params["strategy"] if params else None,
        "extra_info": extra,
        # pytest-benchmark's own settings: nothing was chosen by them, but who reads the file may look them up.
        "options": {
            "disable_gc": True,
            "timer": "perf_counter",
            "min_rounds": 3,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": statistics(samples),
    }


def readable(name: str) -> str:
    """Return a name on one line, short enough; where something was lost, a hash of it all tells it from others."""
    line = one_line(name)
    if line == name and len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    return f"{shortened(line, CUT_NAME) or NOTHING} [{digest}]"


def _extra(results: Results, label: str, found: StrategyResult) -> dict[str, Any]:
    """Return what pytest-benchmark has no field for; bytes and seconds."""
    return {
        "steps": found.steps,
        "scheme": found.scheme,
        "ratio": found.ratio,
        "vram": found.vram,
        "gpu_median_s": median(found.gpu_s) if found.gpu_s else None,
        "adapters": found.adapters,
        "requests": found.requests,
        "verdict": results.verdict_of(label) or None,
    }


def _machine_info(results: Results) -> dict[str, Any]:
    return {
        "node": platform.node(),
        "processor": platform.processor(),
        "machine": platform.machine(),
        "python_compiler": platform.python_compiler(),
        "python_implementation": platform.python_implementation(),
        "python_implementation_version": platform.python_version(),
        "python_version": platform.python_version(),
        "python_build": platform.python_build(),
        "release": platform.release(),
        "system": platform.system(),
        "cpu": {"brand_raw": cpu_name()},
        "device": results.machine,
    }
