"""The codes of the verdicts: one for each thing that a gate can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Code = Literal[
    "vram",
    "gpu-budget",
    "vram-leak",
    "latency",
    "faster-than",
    "equivalence",
    "lora-effect",
    "baseline",
    "baseline-erosion",
    "baseline-missing",
    "baseline-stale",
    "golden",
    "golden-missing",
    "golden-damaged",
    "golden-not-finite",
    "slowdown",
    "error",
]
MEANINGS: Mapping[Code, tuple[str, str]] = {
    "vram": ("`vram_budget`", "the bytes of one phase against the budget of the test"),
    "gpu-budget": ("`--gpu-budget`", "the most bytes of any phase against the card; or the test ran out of it"),
    "vram-leak": (
        "`vram_leak`, `--gpu-leak-limit`",
        "what a test left behind on the device once it was torn down",
    ),
    "latency": ("`latency_budget`", "time against a limit in seconds, or against that of another arm"),
    "faster-than": ("`faster_than`", "time against that of another arm, which it has to be below"),
    "equivalence": (
        "`output_equivalent`",
        "the distance of the output to that of another strategy, and whether the LoRA shows",
    ),
    "lora-effect": (
        "any strategy with a LoRA, `lora_effect`",
        "the effect gain of the layers that the adapter fits: the lowest, and that their median is not too high",
    ),
    "baseline": (
        "`--loraperf-baseline`",
        "time against the last accepted samples, and whether the reference slowed down",
    ),
    "baseline-erosion": (
        "`--loraperf-baseline`",
        "time against the first accepted samples: what crept in with updates",
    ),
    "baseline-missing": ("`--loraperf-baseline`", "the file has no samples of this subject"),
    "baseline-stale": ("`--loraperf-baseline`", "the samples are of other versions, or too old"),
    "golden": ("`--loraperf-baseline`", "the output against the golden latents"),
    "golden-missing": (
        "`--loraperf-baseline`",
        "there are no golden latents of this subject, or their file is not there",
    ),
    "golden-damaged": (
        "`--loraperf-baseline`",
        "the file of the golden latents cannot be read, or is another one",
    ),
    "golden-not-finite": ("`--loraperf-baseline`", "the output has values that are no numbers"),
    "slowdown": ("`loraperf compare`, `loraperf history`", "time against that of another results file"),
    "error": ("any gate", "the test failed or a gate could not be judged, so it is no pass"),
}
"""Who asks for a verdict of this code, and what it judges, in Markdown."""
