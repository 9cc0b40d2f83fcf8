"""Results made by hand: the eight strategies, with figures of a 20 B model on one card."""

from __future__ import annotations

from dataclasses import replace

from pytest_loraperf.report.results import (
    Latency,
    LoraCoverage,
    Machine,
    MemoryOverTime,
    OutputComparison,
    Ratio,
    Results,
    SetupStep,
    StrategyResult,
    VerdictRecord,
    Vram,
)

GIB = 2**30
MACHINE = Machine(
    device="cuda:0", name="H100", driver="580.1", torch="2.11.0", backend="diffsynth 2.1.12", memory_kind="VRAM"
)
FAST = ("torchao_fp8_w8a8", "fastest here")
STORED = ("fp8_storage", "halves what is moved")


def _row(
    *steps: str,
    seconds: float,
    vram: tuple[float, float, float],
    rel_l2: float,
    effect: float,
    scheme: tuple[str, str] | tuple[None, None] = (None, None),
    mistake: str | None = None,
) -> StrategyResult:
    """``seconds`` a generation, ``vram`` in GiB by phase."""
    setup_peak, resident, runtime_peak = (int(size * GIB) for size in vram)
    return StrategyResult(
        steps=steps,
        scheme=scheme[0],
        scheme_reason=scheme[1],
        mistake=mistake,
        setup=tuple(SetupStep(step, 1.25, 840, 846, setup_peak) for step in steps),
        samples_s=(seconds * 0.99, seconds, seconds * 1.01),
        latency=Latency(seconds, (seconds * 0.99, seconds * 1.01), 3),
        ratio=None
        if steps == ("attach",)
        else Ratio("standard_lora", seconds / 1.128, (seconds / 1.13, seconds / 1.12), interleaved=True),
        vram=Vram(setup_peak, resident, runtime_peak, runtime_peak - GIB // 2),
        output=OutputComparison("standard_lora", rel_l2, 0.5, 0.999, 40.0 if rel_l2 else None, effect),
        lora=LoraCoverage(840, 846, 64, gain_min=0.03 if rel_l2 == 0.0379 else 0.993, gain_median=0.999),
    )


STRATEGIES = {
    "standard_lora": _row("attach", seconds=1.128, vram=(39.9, 39.2, 40.3), rel_l2=0, effect=1),
    "quantize_then_lora": _row(
        "quantize[torchao_fp8_w8a8]",
        "attach",
        "compile",
        seconds=1.861,
        vram=(20.9, 20.1, 21.2),
        rel_l2=0.0111,
        effect=0.86,
        scheme=FAST,
        mistake="right but slow",
    ),
    "lora_then_quantize": _row(
        "attach",
        "quantize[torchao_fp8_w8a8]",
        "compile",
        seconds=1.87,
        vram=(20.9, 20.1, 21.2),
        rel_l2=0.0111,
        effect=0.86,
        scheme=FAST,
    ),
    "fused": _row("fuse", seconds=0.863, vram=(39.2, 38.1, 39.2), rel_l2=0.0047, effect=0.95),
    "fused_then_quantize": _row(
        "fuse",
        "quantize[torchao_fp8_w8a8]",
        "compile",
        seconds=0.49,
        vram=(19.8, 19.1, 20.0),
        rel_l2=0.0116,
        effect=0.83,
        scheme=FAST,
    ),
    "low_vram": _row(
        "attach",
        "quantize[fp8_storage]",
        "offload",
        seconds=50.6,
        vram=(2.9, 1.1, 6.9),
        rel_l2=0.0339,
        effect=0.89,
        scheme=STORED,
    ),
    "low_vram_optimized": _row(
        "fuse",
        "quantize[fp8_storage]",
        "offload",
        seconds=1.5,
        vram=(1.9, 0.6, 1.8),
        rel_l2=0.0341,
        effect=0.89,
        scheme=STORED,
    ),
    "quantize_then_fuse": _row(
        "quantize[fp8_storage]",
        "fuse",
        seconds=1.6,
        vram=(20.9, 19.1, 20.0),
        rel_l2=0.0379,
        effect=0.71,
        scheme=STORED,
        mistake="the LoRA fades",
    ),
}
EIGHT = Results(
    plugin_version="0.1.0",
    created="2026-11-23T18:00:00+00:00",
    command="loraperf bench",
    machine=MACHINE,
    model="synthetic:full",
    request={"prompt": "a ghost", "height": 1024, "extra": {"zero_cond_t": True}},
    strategies=STRATEGIES,
    verdicts=(
        VerdictRecord(
            nodeid="test_a.py::test_fast[fused]",
            strategy="fused",
            code="latency",
            status="PASS",
            message="fused took 863.0 ms",
        ),
        VerdictRecord(
            nodeid="test_a.py::test_fast[low_vram]",
            strategy="low_vram",
            code="latency",
            status="PASS",
            message="in time",
        ),
        VerdictRecord(
            nodeid="test_a.py::test_small[low_vram]",
            strategy="low_vram",
            code="vram",
            status="INCONCLUSIVE",
            message="cannot tell",
        ),
        VerdictRecord(
            nodeid="test_a.py::test_q",
            strategy="quantize_then_fuse",
            code="vram",
            status="INCONCLUSIVE",
            message="cannot tell",
        ),
        VerdictRecord(
            nodeid="test_a.py::test_q",
            strategy="quantize_then_fuse",
            code="equivalence",
            status="FAIL",
            message="the LoRA has faded",
        ),
        VerdictRecord(
            nodeid="test_a.py::test_s",
            strategy="standard_lora",
            code="latency",
            status="SKIPPED",
            message="no GPU",
        ),
        VerdictRecord(
            nodeid="test_a.py::test_any",
            strategy=None,
            code="gpu-budget",
            status="FAIL",
            message="over the budget",
        ),
    ),
    notes=("7 rounds of each",),
)


def over_a_generation(peak: float, steps: int = 4) -> MemoryOverTime:
    """Memory that is half of its peak, in GiB, but in the middle of each step."""
    needed = [int(peak * GIB * (1 if moment % 2 else 0.5)) for moment in range(2 * (steps + 2) + 1)]
    seconds = tuple(moment / 2 for moment in range(len(needed)))
    live = tuple(int(size * 0.9) for size in needed)
    return MemoryOverTime(seconds, tuple(needed), live, tuple(float(1 + step) for step in range(steps + 1)))


def with_strategy(name: str, **changes: object) -> Results:
    """The results with one strategy changed, or a new one."""
    found = replace(STRATEGIES.get(name, StrategyResult()), **changes)  # type: ignore[arg-type]  # names of fields
    return replace(EIGHT, strategies={**STRATEGIES, name: found})
