"""What offload[stream] reaches on a GPU: ``python benchmarks/h100/offload.py --json FILE``, in under 240 s.

The file is written anew after each step: a step that fails is noted there and stops no other. It runs on the CPU
with ``--model tiny``.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from pytest_loraperf.backends import streaming
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.gpu.pinned import HostMemory, host_memories
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session

GB = 2**30
LIMITS = (2, 4, 6, 8, 12, 16, 24)
CAPPED = (2, 6, 8)
CONTEXT = 3 * 2**28
"""Bytes of a card that torch's allocator does not give out; a cap on the allocator leaves them out."""
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if CUDA else "cpu")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], repeats: int = 1) -> list[float]:
    seconds = []
    for _ in range(repeats):
        synchronize()
        start = perf_counter()
        work()
        synchronize()
        seconds.append(perf_counter() - start)
    return seconds


@contextmanager
def capped(limit: int | None, context: int = CONTEXT) -> Iterator[None]:
    """Let torch's allocator give out no more than a card of so many bytes has beside the context."""
    if not CUDA or limit is None:
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((limit - context) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def peaks() -> dict[str, int]:
    if not CUDA:
        return {}
    return {"reserved": torch.cuda.max_memory_reserved(), "allocated": torch.cuda.max_memory_allocated()}


def reset_peaks() -> None:
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Measuring:
    """The steps in turn, and what they found."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.start = perf_counter()
        self.session = Session(
            Settings(model=f"synthetic:{given.model}", compile="off"), tell=lambda line: say(f"  {line}")
        )
        self.bench: Bench = self.session.bench()
        self.request = self.session.request()
        self.latents: dict[str, torch.Tensor] = {}
        self.found: dict[str, Any] = {
            "command": f"python {' '.join(sys.argv)}",
            "torch": torch.__version__,
            "model": given.model,
            "failed": {},
        }
        if CUDA:
            self.found["device"] = torch.cuda.get_device_name(0)

    def step(self, name: str, work: Callable[[], Any]) -> None:
        """Note what the work finds, or how it fails."""
        spent = perf_counter() - self.start
        if spent > self.given.seconds:
            self.found["failed"][name] = f"skipped: {spent:.0f} s are over"
        else:
            say(f"[{spent:5.1f} s] {name}")
            try:
                self.found[name] = work()
                say(f"          {json.dumps(self.found[name])}")
            except Exception as error:  # noqa: BLE001 - the other steps count
                self.found["failed"][name] = f"{type(error).__name__}: {error}"[:500]
                say(f"          failed: {self.found['failed'][name]}")
        self.found["seconds"] = round(perf_counter() - self.start, 1)
        self.given.json.write_text(json.dumps(self.found, indent=1) + "\n")

    def run(self, name: str) -> torch.Tensor:
        """Run one generation."""
        return self.session.shop.backend.generate(self.bench.arms[name].pipeline, self.request).latents

    def generations(self, name: str, repeats: int) -> dict[str, Any]:
        """Time generations once the first has shown what they take; the output of each is compared."""
        self.run(name)
        self.run(name)
        reset_peaks()
        outputs: list[torch.Tensor] = []
        state = streaming.offloaded(self.bench.arms[name].pipeline)
        moved = state.stream.moved if state else 0
        seconds = timed(lambda: outputs.append(self.run(name)), repeats)
        found: dict[str, Any] = {"s": median(seconds), "all_s": seconds, **peaks()}
        self.latents.setdefault(name, outputs[-1].cpu())
        if state:
            kept = [block.kept for block in state.stream.blocks]
            found |= {"moved": (state.stream.moved - moved) // repeats, "kept": sum(kept), "blocks": len(kept)}
        found["same_each_time"] = all(torch.equal(outputs[0], output) for output in outputs)
        return found

    def set_up(self, name: str) -> dict[str, float]:
        """Build the arm; return the seconds of each step."""
        arm = self.bench.arm(name)
        found = {record.name: record.seconds for record in arm.setup}
        return {**found, "all": sum(found.values()), "least_gain": min(arm.gains.values()), **peaks()}

    def bandwidth(self) -> dict[str, float]:
        """Copy pinned memory and nothing else: bytes a second."""
        size = GB if CUDA else 2**20
        host, there = HostMemory(size, pinned=CUDA).bytes, torch.empty(size, dtype=torch.uint8, device=DEVICE)
        up = timed(lambda: there.copy_(host, non_blocking=True), 5)
        down = timed(lambda: host.copy_(there, non_blocking=True), 5)
        return {"to_device": size / min(up), "to_host": size / min(down)}

    def resident(self, name: str) -> dict[str, Any]:
        """Build and time an arm that is not offloaded."""
        reset_peaks()
        found = {"set_up": self.set_up(name), **self.generations(name, 3)}
        self.bench.release(name)
        return found

    def offloaded(self, name: str, limit: int, same_as: str) -> dict[str, Any]:
        """Build and time an arm that is, on a card of so many GB."""
        reset_peaks()
        with capped(limit * GB):
            found = {"set_up": self.set_up(name), **self.generations(name, 3)}
        found["bitwise_equal"] = self.same(name, same_as)
        return found

    def at_limit(self, name: str, limit: int, same_as: str) -> dict[str, Any]:
        """Offload an arm anew, for another card, and time it beside what bounds it."""
        try:
            found = self.streamed(name, limit, CONTEXT)
        except torch.OutOfMemoryError as error:
            say(f"          with the context counted in: {error}"[:200])
            found = {"without_context": True, **self.streamed(name, limit, 0)}
        bandwidth = self.found.get("bandwidth", {}).get("to_device")
        compute = self.found.get(same_as, {}).get("s")
        if bandwidth and compute:
            bound = max(found["moved"] / bandwidth, compute)
            found |= {"bound_s": bound, "of_bound": bound / found["s"]}
        found["bitwise_equal"] = self.same(name, same_as)
        return found

    def streamed(self, name: str, limit: int, context: int) -> dict[str, Any]:
        """Offload an arm anew within a cap, and time it."""
        self.latents.pop(name, None)
        with capped(limit * GB if limit in CAPPED else None, context):
            seconds = timed(lambda: streaming.stream_blocks(self.bench.arms[name].pipeline, limit * GB))
            return {"offload_s": seconds[0], **self.generations(name, 5)}

    def same(self, name: str, other: str) -> bool | None:
        """Compare the latents of two arms, bit for bit; None where one has none."""
        if name not in self.latents or other not in self.latents:
            return None
        return torch.equal(self.latents[name], self.latents[other])

    def pinning(self) -> dict[str, float]:
        """Pin as much as the offload step does, as it does, and as torch does: nothing else.

        Torch does it twice: what has not been touched before takes longer.
        """
        state = streaming.offloaded(self.bench.arms["low_vram_optimized"].pipeline)
        if state is None:
            raise RuntimeError("low_vram_optimized is not streamed")
        blocks = [block.packed.size for block in state.stream.blocks]
        held: list[HostMemory] = []
        seconds = timed(lambda: held.extend(host_memories(blocks, DEVICE)))[0]
        found = {"bytes": float(sum(blocks)), "s": seconds, "pinned": float(sum(each.pinned for each in held))}
        start = perf_counter()
        held.clear()
        found["free_s"] = perf_counter() - start
        theirs: list[torch.Tensor] = []
        for name in ("torch_s", "torch_again_s"):
            found[name] = timed(
                lambda: theirs.extend(torch.empty(size, dtype=torch.uint8, pin_memory=CUDA) for size in blocks)
            )[0]
            theirs.clear()
            if CUDA:
                torch._C._host_emptyCache()  # noqa: SLF001 - its only name; else it is kept until the process ends
        return found

    def sizes(self, name: str, limit: int) -> dict[str, Any]:
        """Other image sizes, up and down, within the same cap."""
        pipe, found = self.bench.arms[name].pipeline, {}
        side = self.request.height
        with capped(limit * GB):
            streaming.stream_blocks(pipe, limit * GB)
            for height, width in ((side, side * 2), (side // 2, side // 2), (side * 2, side * 2)):
                request = self.request.with_changes(height=height, width=width, steps=2)
                generate = partial(self.session.shop.backend.generate, pipe, request)
                generate()
                reset_peaks()
                state = streaming.offloaded(pipe)
                kept = sum(block.kept for block in state.stream.blocks) if state else 0
                found[f"{height}x{width}"] = {"s": timed(generate)[0], "kept": kept, **peaks()}
        return found

    def diffusers(self, name: str, same_as: str, *, record_stream: bool) -> dict[str, Any]:
        """Time diffusers' group offloading by blocks on the same weights."""
        from diffusers.hooks.group_offloading import apply_group_offloading  # noqa: PLC0415 - not everywhere

        pipe = self.bench.arms[name].pipeline
        state = streaming.offloaded(pipe)
        if state:
            state.undo()
        model_fn, dit = pipe.model_fn, pipe.dit
        wrapped = Wrapped(dit, model_fn)
        pipe.model_fn = lambda dit=None, **kwargs: wrapped(**kwargs)  # noqa: ARG005 - the wrapper has it
        stream: dict[str, Any] = {"use_stream": True, "record_stream": record_stream} if CUDA else {}
        try:
            start = perf_counter()
            apply_group_offloading(
                wrapped,
                onload_device=DEVICE,
                offload_device=torch.device("cpu"),
                offload_type="block_level",
                num_blocks_per_group=1,
                non_blocking=CUDA,
                low_cpu_mem_usage=False,
                **stream,
            )
            offload_s = perf_counter() - start
            self.latents.pop(name, None)
            found = {"offload_s": offload_s, **self.generations(name, 2)}
        finally:
            pipe.model_fn = model_fn
        return {**found, "bitwise_equal": self.same(name, same_as)}


class Wrapped(torch.nn.Module):
    """DiffSynth calls a DiT's parts, never its ``forward``, which diffusers' hooks are on: here is one."""

    def __init__(self, dit: torch.nn.Module, model_fn: Callable[..., Any]) -> None:
        super().__init__()
        for name, part in dit.named_children():
            self.add_module(name, part)
        self._call = partial(model_fn, dit=dit)

    def forward(self, **kwargs: Any) -> Any:
        """Predict the noise."""
        return self._call(**kwargs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="full", choices=["full", "tiny"])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=200.0, help="begin no step after so long")
    given = parser.parse_args()
    run = Measuring(given)
    fused, attached = "fused_then_quantize", "lora_then_quantize"
    with torch.no_grad():
        run.step("bandwidth", run.bandwidth)
        run.step(fused, partial(run.resident, fused))
        run.step("low_vram_optimized", partial(run.offloaded, "low_vram_optimized", 6, fused))
        run.step("pinning", run.pinning)
        for limit in LIMITS:
            run.step(f"limit_{limit}", partial(run.at_limit, "low_vram_optimized", limit, fused))
        run.step("sizes", partial(run.sizes, "low_vram_optimized", 6))
        run.step("diffusers_block_level", partial(run.diffusers, "low_vram_optimized", fused, record_stream=True))
        run.bench.release("low_vram_optimized")
        run.step(attached, partial(run.resident, attached))
        run.step("low_vram", partial(run.offloaded, "low_vram", 8, attached))
    run.session.close()
    say(f"wrote {given.json}: {len(run.found['failed'])} steps failed")
    return int(bool(run.found["failed"]))


if __name__ == "__main__":
    sys.exit(main())
