"""``--gpu-budget-mode``, on the command line and in the ini; the card itself is tested with the device."""

from __future__ import annotations

import pytest

TEST = "def test_it():\n    pass\n"
NO_CARD = "no card is named; add its size, such as --gpu-budget=14GB"
NO_GPU = (
    "no CUDA device here, and a small card is played by a larger one; "
    "leave it out, or hold the budget by --loraperf-forecast"
)
CPU = "--loraperf-device=cpu"

OUT_OF_CARD = """
    import pytest
    import torch
    from pytest_loraperf.fixtures import SESSION

    class Card:
        size = 14 * 2**30

        def parts(self):
            return {"live tensors": 13 * 2**30, "card": self.size}

        def adjust(self):
            pass

        def close(self):
            print("given back")

    @pytest.fixture(scope="session", autouse=True)
    def card(pytestconfig):
        pytestconfig.stash[SESSION].cap = Card()
"""
HOLDER = """
    import weakref
    import torch

    BIG = weakref.WeakSet()

    class Big:
        pass

    def fill():
        big = Big()
        BIG.add(big)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has more to say.")

    def test_too_much():
        fill()

    def test_next_starts_clean():
        assert not BIG
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu-budget-mode=limit"], "--gpu-budget-mode: got 'limit'; allowed are assert, cap"),
        (["--gpu-budget-mode=cap"], f"--gpu-budget-mode=cap: {NO_CARD}"),
        (["--gpu-budget-mode=cap", "--gpu-budget=14GB", CPU], f"--gpu-budget-mode=cap: {NO_GPU}"),
        (["--gpu-budget-mode=cap", "--gpu-budget=14GB", CPU, "-n2"], f"--gpu-budget-mode=cap: {NO_GPU}"),
        (
            ["--gpu-budget-mode=cap", "--gpu-budget=14GB", "--loraperf-forecast"],
            "--gpu-budget-mode=cap: a forecast uses no GPU; leave out one of --gpu-budget-mode and --loraperf-forecast",
        ),
    ],
)
def test_a_card_that_cannot_be_played_ends_the_run(
    pytester: pytest.Pytester, options: list[str], message: str
) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: loraperf: {message}"])


def test_the_mode_may_stand_in_the_ini(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    pytester.makeini("[pytest]\ngpu_budget_mode = cap\n")
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: loraperf: --gpu-budget-mode=cap: {NO_CARD}"])
    pytester.runpytest("--gpu-budget-mode=assert").assert_outcomes(passed=1)


def test_a_test_that_runs_out_of_the_card_fails_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OUT_OF_CARD)
    pytester.makepyfile(test_big=HOLDER)
    result = pytester.runpytest(CPU, "--gpu-budget=14GB", "-s")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf gpu-budget: the test ran out of a card of 14 GB in its call at test_big.py:12: CUDA out of "
            "memory. Tried to allocate 2.00 GiB; quantize or offload more, or raise --gpu-budget",
            "*loraperf gpu-budget*",
            "live tensors * 13 GB",
            "card * 14 GB",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.fnmatch_lines(["*given back*"])
