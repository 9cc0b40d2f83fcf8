"""How the command ``loraperf`` ends: its exit codes, and what each of its commands means by them."""

from __future__ import annotations

FINE, FINDING, USAGE, INCONCLUSIVE = 0, 1, 2, 3
INTERRUPTED = 130  # as a shell shows a program that SIGINT ended
CUT_OFF = 141  # as a shell shows a program that SIGPIPE ended: it passed nothing
MEANINGS = {
    FINE: "fine",
    FINDING: "a finding, or a failure",
    USAGE: "wrong usage: an argument, or a file that cannot be used",
    INCONCLUSIVE: "cannot tell",
    INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; `bench`, `effect` and `forecast` write what they found before",
    CUT_OFF: "whoever read the output went away, as `| head` does",
}
BY_COMMAND = {
    "bench": {
        FINDING: "a strategy cannot be built, has lost the LoRA, is not equivalent to the reference, or is over "
        "the budget; or a point of a sweep is, or cannot be measured"
    },
    "calibrate": {FINDING: "wrong verdicts are more than is promised, by more than chance explains"},
    "compare": {
        FINDING: "a strategy is slower than allowed, or has an error in NEW",
        INCONCLUSIVE: "the samples cannot tell, or are missing",
    },
    "effect": {FINDING: "a layer has less than the wanted gain, or a strategy cannot be built"},
    "forecast": {FINDING: "a strategy does not fit the budget, or cannot be forecast"},
    "lint": {FINDING: "something is found"},
    "report": {},
    "history": {},
    "doctor": {FINDING: "something keeps this machine from measuring"},
}
"""What a command's own codes mean. Each ends with FINE, too, and with USAGE."""


def exits_of(command: str) -> str:
    """Return the sentence that a command's help ends with."""
    own = "".join(f", with {code} when {meaning}" for code, meaning in BY_COMMAND[command].items())
    return f"Exits with {FINE} when all is fine{own}, and with {USAGE} on wrong usage."
