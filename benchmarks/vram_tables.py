"""Tables of VRAM measured on a GPU, for the documents: speed by the card, forecasts held to it, a card played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measured import read_measured
from benchmarks.offload_plot import RESIDENT, limits
from pytest_loraperf.units import format_duration, format_size

PHASES = {
    "setup_peak": "set-up",
    "resident": "resident",
    "runtime_peak": "runtime",
    "allocated_peak": "live tensors",
}


def offload_table(file: Path) -> str:
    """Return seconds a generation by the card's size, what bounds them, and the blocks that stay."""
    found = read_measured(file)
    lines = [
        "| card | a generation | of what bounds it | blocks that stay | reserved by torch |",
        "|--:|--:|--:|--:|--:|",
    ]
    for size, each in limits(found).items():
        kept = f"{each['kept']} of {each['blocks']}"
        cells = (
            f"{size} GB",
            format_duration(each["s"]),
            f"{each['of_bound']:.0%}",
            kept,
            format_size(each["reserved"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    whole, attached, fused = (
        format_duration(found[name]["s"]) for name in (RESIDENT, "low_vram", "low_vram_optimized")
    )
    group = found["diffusers_block_level"]
    bandwidth = found["bandwidth"]["to_device"] / 1e9
    equal = "yes" if _all_equal(found) else "NO"
    lines.append(
        f"""
- {found["device"]}, torch {found["torch"]}: {bandwidth:.1f} GB/s from pinned memory (decimal).
- What bounds a generation is the larger of what is moved over that, and the {whole} that it takes with all weights
  on the device.
- As the strategies have it: `low_vram_optimized` for 6 GB {fused}, `low_vram` for 8 GB {attached}.
- diffusers' group offloading of the same weights, a block at a time with a stream: {format_duration(group["s"])},
  {format_size(group["reserved"])} reserved.
{_set_up(found)}
- Every output was bit for bit that of resident weights: {equal}.
- `{found["command"]}`"""
    )
    return "\n".join(lines)


def _set_up(found: dict[str, Any]) -> str:
    """Say what the set-up of the two strategies takes, beside pinning their blocks and nothing else."""
    pinning = found["pinning"]
    first, later = found["low_vram_optimized"]["set_up"]["all"], found["low_vram"]["set_up"]["all"]
    torch, again = pinning["torch_s"], pinning["torch_again_s"]
    return f"""\
- Set-up of `low_vram_optimized` in host memory not touched before: {format_duration(first)}; of `low_vram`, later:
  {format_duration(later)}. Torch's `pin_memory` takes {format_duration(torch)} for the same blocks, and then
  {format_duration(again)}: {first / torch:.2f} and {later / again:.2f} of it.
- The step pins by several threads. That alone, in memory not touched before: {format_duration(pinning["s"])}."""


def _all_equal(found: dict[str, Any]) -> bool:
    said = [each["bitwise_equal"] for each in found.values() if isinstance(each, dict) and "bitwise_equal" in each]
    return bool(said) and all(said)


def forecast_table(measured: Path, forecast: Path) -> str:
    """Return what was measured of each strategy, and how far its forecast is from it, phase by phase."""
    there, told = read_measured(measured), read_measured(forecast)["strategies"]
    lines = [
        f"| strategy | {' | '.join(PHASES.values())} |",
        f"|---|{'--:|' * len(PHASES)}",
    ]
    for name, each in there["strategies"].items():
        if name in told:
            cells = (
                f"{format_size(each['vram'][phase])}, {told[name]['vram'][phase] / each['vram'][phase] - 1:+.1%}"
                for phase in PHASES
            )
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    machine = there["machine"]
    lines += ["", f"- {machine['name']}, driver {machine['driver']}, torch {machine['torch']}, {there['model']}"]
    lines += [f"- `{each['command']}`" for each in (there, read_measured(forecast))]
    return "\n".join(lines)


def cap_table(file: Path) -> str:
    """Return how each test ended on the card that was played, in every order in which they ran."""
    found = read_measured(file)
    runs = found["runs"]
    names = sorted(runs[0]["outcomes"], key=lambda name: (runs[0]["outcomes"][name] != "passed", name))
    orders = " | ".join(f"order {each['seed']}" for each in runs)
    lines = [f"| on a card of {found['card']} | {orders} |"]
    lines.append(f"|---|{'---|' * len(runs)}")
    for name in names:
        ends = (each["outcomes"][name] for each in runs)
        strategy = name.partition("[")[2].rstrip("]")
        lines.append(f"| `{strategy}` | {' | '.join(map(_ended, ends))} |")
    lines.append(f"\n- `{found['command']}`")
    return "\n".join(lines)


def _ended(end: str) -> str:
    """Return how a test ended in a few words; what is not the plugin's own message is shown as it is."""
    if end == "passed":
        return end
    return "out of memory, said in one line" if "loraperf: strategy" in end and "out of memory" in end else end
