"""The verdicts: pure functions from numbers to values; no torch, no pytest."""

from pytest_loraperf.verdict.decision import Decision, decide
from pytest_loraperf.verdict.types import Status, Verdict

__all__ = ["Decision", "Status", "Verdict", "decide"]
