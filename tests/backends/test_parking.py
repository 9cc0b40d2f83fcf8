"""A pipeline's tensors go elsewhere and come back: on the CPU to other host memory, so that they really move."""

from __future__ import annotations

import gc
import mmap
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffsynth.core.vram.layers import LoRAHotLoadMixin
from torch import nn

from pytest_loraperf.backends.diffsynth import DiffSynth
from pytest_loraperf.backends.parking import Parked, park, parking_seconds, unpark
from pytest_loraperf.backends.quantization import quantize
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.gpu.device import Device
from pytest_loraperf.gpu.pinned import HostMemory
from pytest_loraperf.options import Settings
from pytest_loraperf.request import Request
from pytest_loraperf.session import Session

FP8_CPU = Device("cpu", "a CPU that says it has fp8 products", capability=(8, 9))
REQUEST = Request(steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    # What is streamed has host memory of its own, so that parking it frees none: test_streaming has that.
    session = Session(Settings(model="synthetic:tiny", device="cpu", offload="diffsynth"))
    yield session.bench()
    session.close()


def torchao(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Quantized by torchao, which asks for a GPU, though its products run on the CPU as well."""
    from torchao.quantization import quant_api

    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _granularity: None)
    pipe = build_synthetic("tiny", seed=0, device="cpu", weights_on="cpu")
    quantize(pipe, pipe.dit, "torchao_fp8_w8a8", FP8_CPU)
    return pipe


@pytest.fixture(params=["fused", "standard_lora", "quantize_then_lora", "low_vram_optimized", "torchao"])
def pipeline(request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "torchao":
        return torchao(monkeypatch)
    return bench.arm(request.param).pipeline


def held(pipe: Any) -> dict[str, torch.Tensor]:
    """All that modules hold: parameters, buffers and LoRA, and what is inside of torchao's."""
    found = dict(pipe.named_parameters()) | dict(pipe.named_buffers())
    for name, module in pipe.named_modules():
        if isinstance(module, LoRAHotLoadMixin):
            pairs = zip(module.lora_A_weights, module.lora_B_weights, strict=True)
            found |= {f"{name}.{index}.{side}": t for index, ab in enumerate(pairs) for side, t in enumerate(ab)}
    parts = dict(found)
    for name, tensor in found.items():
        if hasattr(tensor, "qdata"):
            parts |= {f"{name}.qdata": tensor.qdata, f"{name}.scale": tensor.scale}
            del parts[name]
    return parts


def looks(tensor: torch.Tensor) -> tuple[Any, ...]:
    kind = (type(tensor), tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())
    return (*kind, tensor.device, tensor.requires_grad)


def bits(tensor: torch.Tensor) -> bytes:
    storage = tensor.detach().contiguous().reshape(-1)
    return storage.view(torch.uint8).numpy().tobytes()


def inside(tensor: torch.Tensor, parked: Parked) -> bool:
    start = parked.memory.bytes.data_ptr()
    return start <= tensor.data_ptr() < start + parked.memory.bytes.numel()


def test_a_round_trip(bench: Bench, pipeline: Any) -> None:
    tensors, objects = held(pipeline), dict(pipeline.named_parameters())
    known = {name: (looks(tensor), bits(tensor)) for name, tensor in tensors.items()}
    # On the CPU an attached LoRA is the adapter's own tensor, which stays where it is.
    adapters = {t.data_ptr() for match in bench.arm("fused").matches for t in match.state_dict().values()}
    own = [tensor.untyped_storage() for tensor in tensors.values() if tensor.data_ptr() not in adapters]
    before = [weakref.ref(storage) for storage in own]
    del own

    parked = park(pipeline, "cpu")
    gc.collect()
    assert sum(storage() is not None for storage in before) == 0
    assert all(inside(tensor, parked) for tensor in tensors.values())
    assert {name: bits(tensor) for name, tensor in tensors.items()} == {name: b for name, (_, b) in known.items()}

    unpark(parked)
    assert not any(inside(tensor, parked) for tensor in tensors.values())
    assert {name: (looks(tensor), bits(tensor)) for name, tensor in tensors.items()} == known
    assert all(held(pipeline)[name] is tensor for name, tensor in tensors.items())
    assert all(dict(pipeline.named_parameters())[name] is parameter for name, parameter in objects.items())


@pytest.mark.parametrize("strategy", ["fused", "standard_lora", "fused_then_quantize"])
def test_the_backend_generates_the_same(bench: Bench, strategy: str) -> None:
    backend, pipe = DiffSynth(Device("cpu", "CPU")), bench.arm(strategy).pipeline
    before = backend.generate(pipe, REQUEST).latents
    parked = backend.park(pipe)
    backend.unpark(pipe, parked)
    again = backend.park(pipe, parked)
    assert again.memory is parked.memory
    backend.unpark(pipe, again)
    assert torch.equal(backend.generate(pipe, REQUEST).latents, before)


class Odd(nn.Module):
    """A weight used twice, one that is transposed, two within one storage, and what is not one byte long."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.arange(24.0)
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(4, 6)
        self.second.weight = self.first.weight
        self.turned = nn.Parameter(torch.randn(3, 5, dtype=torch.float64).T, requires_grad=False)
        self.head = nn.Parameter(whole[:8])
        self.tail = nn.Parameter(whole[9:].view(3, 5))
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("none", torch.empty(0))
        self.register_buffer("turns", torch.polar(torch.ones(3), torch.arange(3.0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(x) + self.first(x) * self.head.sum() + self.tail.sum() + self.turned.sum()
        return out


def test_shared_storages_stay_shared() -> None:
    module = Odd()
    known = {name: (looks(tensor), bits(tensor)) for name, tensor in module.state_dict(keep_vars=True).items()}
    parked = park(module, "cpu")
    assert [len(berth.tensors) for berth in parked.berths if len(berth.tensors) > 1] == [2]
    assert len(parked.berths) == 8
    unpark(parked)
    assert {name: (looks(t), bits(t)) for name, t in module.state_dict(keep_vars=True).items()} == known
    assert module.second.weight is module.first.weight
    with torch.no_grad():
        module.head[7] = 70.0
    assert module.tail.untyped_storage().data_ptr() == module.head.untyped_storage().data_ptr()
    assert module.tail.data.storage_offset() == 9


def test_what_was_compiled_still_holds() -> None:
    module, x = Odd(), torch.randn(2, 4)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    before = compiled(x)
    parked = park(module, "cpu")
    unpark(parked)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert torch.equal(compiled(x), before)


def test_only_what_is_on_the_device_is_moved() -> None:
    module = Odd()
    where = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    assert park(module, "meta").berths == ()
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == where


def test_host_memory_that_is_too_small_is_not_used_again() -> None:
    module = Odd()
    kept = park(module, "cpu")
    unpark(kept)
    module.register_buffer("more", torch.zeros(10_000))
    parked = park(module, "cpu", kept)
    assert parked.memory is not kept.memory
    assert inside(module.get_buffer("more"), parked)


def test_what_cannot_be_moved_is_an_error_and_leaves_all_where_it_was() -> None:
    module = Odd()
    module.register_buffer("sparse", torch.eye(3).to_sparse())
    where = module.head.data_ptr()
    with pytest.raises(RuntimeError):
        park(module, "cpu")
    assert module.head.data_ptr() == where


class TestPinning:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """What CUDA is asked for, by a runtime that refuses more than 1000 bytes."""
        asked: list[tuple[Any, ...]] = []

        def register(address: int, size: int, flags: int) -> int:
            asked.append(("register", address, size, flags))
            return 2 if size > 1000 else 0

        def unregister(address: int) -> None:
            asked.append(("unregister", address))

        def launch(*_: object, **__: object) -> None:
            asked.append(("launch",))
            raise RuntimeError("what CUDA tells a second time")

        monkeypatch.setattr(torch, "ones", launch)
        cudart = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=unregister)
        monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
        return asked

    def test_is_undone_once_the_memory_is_dropped(self, calls: list[tuple[Any, ...]]) -> None:
        memory = HostMemory(1000, pinned=True)
        address = memory.bytes.data_ptr()
        assert address % mmap.PAGESIZE == 0
        assert calls == [("register", address, 1000, 0)]
        del memory
        assert calls[1:] == [("unregister", address)]

    def test_that_fails_is_an_error(self, calls: list[tuple[Any, ...]]) -> None:
        with pytest.raises(
            RuntimeError, match=r"^1001 bytes of host memory cannot be pinned: CUDA error 2$"
        ) as caught:
            HostMemory(1001, pinned=True)
        assert [call[0] for call in calls] == ["register", "launch"]
        assert caught.value.__context__ is None

    def test_of_nothing_asks_nothing(self, calls: list[tuple[Any, ...]]) -> None:
        assert HostMemory(0, pinned=True).bytes.numel() == 0
        assert HostMemory(5, pinned=False).bytes.numel() == 5
        assert calls == []


def test_the_first_parking_has_to_pin() -> None:
    assert parking_seconds(55 * 10**9, pinned=True) == pytest.approx(2)
    assert parking_seconds(3 * 10**9, pinned=False) == pytest.approx(1 + 6 / 55)
    assert parking_seconds(0, pinned=False) == 0
