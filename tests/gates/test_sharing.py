"""Several workers on one GPU: what a test declares, and real workers that wait for room. No GPU is needed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pytest_loraperf.gpu.admission import Admission
from pytest_loraperf.hooks.sharing import declared
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.specs import FasterThan, Gates, LatencyBudget, NeedsGpu, OutputEquivalent, VramBudget
from pytest_loraperf.strategies import Strategies

GB = 2**30
TOTAL = 80 * GB
PIPELINE = ("fused_pipeline", "request")
RATIO = LatencyBudget(1.1, of="standard_lora")


@pytest.mark.parametrize(
    ("gates", "budget", "fixtures", "need"),
    [
        (Gates(), None, ("tmp_path",), None),  # it says nothing and uses none
        (Gates(), None, PIPELINE, TOTAL),
        (Gates(), None, ("lora_pipeline",), TOTAL),
        (Gates(), None, ("gpu_workload",), TOTAL),
        (Gates(), None, ("lora_race",), TOTAL),
        (Gates(needs=(NeedsGpu(None, None),)), None, (), TOTAL),
        (Gates(), 14 * GB, (), 14 * GB),  # a card's budget holds every test, ours or not
        (Gates(vram=(VramBudget(24 * GB, "runtime"),)), None, PIPELINE, 24 * GB),
        (Gates(vram=(VramBudget(24 * GB, "runtime"), VramBudget(42 * GB, "setup"))), None, PIPELINE, 42 * GB),
        (Gates(vram=(VramBudget(24 * GB, "runtime"),)), 30 * GB, PIPELINE, 30 * GB),
        # The other strategy is built too, and no budget is held against it.
        (Gates(vram=(VramBudget(24 * GB, "runtime"),), latency=(RATIO,)), None, PIPELINE, TOTAL),
        (
            Gates(vram=(VramBudget(24 * GB, "setup"),), equivalent=(OutputEquivalent("fused"),)),
            14,
            PIPELINE,
            TOTAL,
        ),
        # Another workload of the same test is within its budget.
        (Gates(vram=(VramBudget(9, "runtime"),), faster=(FasterThan("old", 0.0),)), None, ("gpu_workload",), 9),
    ],
)
def test_what_a_test_declares(
    gates: Gates, budget: int | None, fixtures: tuple[str, ...], need: int | None
) -> None:
    assert declared(gates, budget, fixtures, Strategies(), TOTAL) == need


def test_on_the_cpu_nobody_is_admitted() -> None:
    assert Session(Settings(device="cpu")).admission is None


def test_what_is_vacated_is_built_again() -> None:
    session = Session(Settings(device="cpu", model="synthetic:tiny"))
    bench = session.bench()
    first = bench.generate("no_lora", session.request()).latents
    assert session.kept > 0
    session.vacate()
    assert bench.arms["no_lora"].pipeline is None
    assert (bench.generate("no_lora", session.request()).latents == first).all()
    session.close()


CONFTEST = """
    import time
    from pathlib import Path
    import pytest
    import pytest_loraperf.hooks.sharing
    from pytest_loraperf.fixtures import SESSION
    from pytest_loraperf.gpu.admission import Admission

    HERE = Path(__file__).parent
    pytest_loraperf.hooks.sharing.LONG_SECONDS = 0.05

    @pytest.hookimpl(trylast=True)
    def pytest_configure(config):
        if hasattr(config, "workerinput"):
            run = config.stash[SESSION]
            run.__dict__["admission"] = Admission("GPU-x", {total}, run.tell, run._note, HERE)
            vacate = run.vacate
            run.vacate = lambda: (vacate(), open(HERE / "vacated", "a").write("once\\n"))

    def pytest_collection_modifyitems(items):
        items.sort(key=lambda item: "plain" in item.name)

    @pytest.fixture
    def span(request):
        start = time.time()
        yield
        with open(HERE / "spans", "a") as file:
            file.write(f"{{start}} {{time.time()}} {{request.node.name}}\\n")

    @pytest.fixture
    def entries():
        return lambda pid: list(HERE.glob(f"*/*-{{pid}}.entry"))
"""
SUITE = """
    import os, time
    from pathlib import Path
    import pytest

    HERE = Path(__file__).parent

    @pytest.mark.parametrize("number", range(4))
    def test_big(span, gpu_workload, entries, number):
        assert len(entries(os.getpid())) == 1
        wait = 60 if number in (0, 2) else 0  # the first of each worker, until the other worker asks too
        while len(entries("*")) < 2 and not (HERE / "spans").exists() and wait > 0:
            wait -= 0.05
            time.sleep(0.05)
        time.sleep(0.1)

    @pytest.mark.parametrize("number", range(2))
    def test_plain(entries, number):
        assert entries(os.getpid()) == []
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def spans(pytester: pytest.Pytester) -> list[tuple[float, float]]:
    lines = (pytester.path / "spans").read_text().splitlines()
    return sorted((float(start), float(end)) for start, end, _ in map(str.split, lines))


def test_workers_wait_for_room_and_it_is_told(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.format(total=80 * GB))
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-n2", "--loraperf-device=cpu", "--loraperf-gpus=0")
    result.assert_outcomes(passed=6)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans(pytester)))
    result.stdout.fnmatch_lines(
        [
            "worker gw*: * waited * in all for room on the GPU; "
            "declare smaller budgets (vram_budget, --gpu-budget), or use fewer workers"
        ]
    )
    assert (pytester.path / "vacated").read_text()
    assert list(pytester.path.glob("*/*.entry")) == []


def test_what_fits_beside_another_does_not_wait(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.format(total=80 * GB))
    pytester.makeini("[pytest]\nloraperf_gpus = 0\nloraperf_device = cpu\ngpu_budget = 40GB")
    pytester.makepyfile("""
        def test_it(entries):
            assert len(entries("*")) == 2
    """)
    other = Admission("GPU-x", 80 * GB, print, print, pytester.path)
    other.enter(40 * GB)
    pytester.runpytest_subprocess("-n2").assert_outcomes(passed=1)
    other.leave()


def test_where_there_is_no_room_a_test_fails_with_one_line(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.format(total=80 * GB).replace("run._note, HERE", "run._note, HERE, wait=0.3"))
    pytester.makepyfile(SUITE)
    other = Admission("GPU-x", 80 * GB, print, print, pytester.path)
    other.enter(1 * GB)
    result = pytester.runpytest_subprocess("-n2", "--loraperf-device=cpu", "--loraperf-gpus=0")
    result.assert_outcomes(passed=2, errors=4)
    result.stdout.fnmatch_lines(
        ["loraperf: a test that needs 80 GB has found no room on GPU-x for 0 s beside those*"]
    )
    other.leave()


def test_a_worker_with_a_gpu_of_its_own_asks_nobody(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.format(total=80 * GB))
    pytester.makepyfile("""
        def test_it(gpu_workload, entries):
            assert entries("*") == []
    """)
    result = pytester.runpytest_subprocess("-n2", "--loraperf-device=cpu", "--loraperf-gpus=0,1")
    result.assert_outcomes(passed=1)
