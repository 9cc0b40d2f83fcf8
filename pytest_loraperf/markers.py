"""The markers, as ``pytest --markers`` shows them. What they are called with is read in ``specs``."""

from __future__ import annotations

MARKERS = {
    "lora_strategy": (
        "lora_strategy(*names): "
        'run the test once for each strategy, through the fixture lora_pipeline; "all" is each but no_lora.'
    ),
    "latency_budget": (
        "latency_budget(limit=None, *, ratio=None, of=None): "
        'at most limit ("1.5s"), or at most ratio times as long as another strategy or workload.'
    ),
    "vram_budget": (
        'vram_budget(limit, *, phase="runtime"): '
        'at most limit ("14GB") of VRAM; phase is setup, runtime, or resident (of a pipeline).'
    ),
    "vram_leak": (
        'vram_leak(limit): at most limit ("1MB") is left behind on the device once the test is torn down.'
    ),
    "faster_than": (
        'faster_than(reference, *, by="0%"): '
        "takes less time than another strategy or workload, by at least so much."
    ),
    "output_equivalent": (
        "output_equivalent(to, *, rel_l2=None, max_abs=None, cosine=None, psnr=None, image_psnr=None): "
        "the same output as another strategy within limits, and not the output without the LoRA."
    ),
    "lora_effect": (
        "lora_effect(*, min_gain): "
        "every layer keeps at least this share of the LoRA's intended effect, 0.9 without the marker, "
        "and the median layer has 1.5 of it at most."
    ),
    "allow_order": (
        "allow_order(code, *, reason): "
        'let one rule on the order of operations, such as "LRP102", be broken in this test, for this reason.'
    ),
    "loraperf_lint": (
        "loraperf_lint: "
        'what --loraperf-lint adds to a run has it, so that -m loraperf_lint (or "not loraperf_lint") selects.'
    ),
    "needs_gpu": (
        "needs_gpu(*, vram=None, capability=None): "
        'skip unless there is a CUDA device with so much memory ("24GB") and this compute capability ("8.9").'
    ),
}
