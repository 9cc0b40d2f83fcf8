"""The steps on DiffSynth's real pipeline, tiny, on the CPU: beside what DiffSynth does by hand."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffsynth.core.vram.layers import LoRAHotLoadMixin
from safetensors.torch import load_file

from pytest_loraperf.backends.quantization import FP8
from pytest_loraperf.backends.synthetic import build_synthetic
from pytest_loraperf.bench.bench import Bench
from pytest_loraperf.errors import LoraperfError, ModelError, StrategyError
from pytest_loraperf.lora import linear_shapes, weight_norms, write_synthetic_adapter
from pytest_loraperf.options import Settings
from pytest_loraperf.session import Session
from pytest_loraperf.strategies import COMPILE, QUANTIZE, Step, StepKind, Strategies, Strategy

LORA_LAYERS = 28  # 14 in each of two blocks
ALL_LAYERS = 34  # and those around them
BLOCKS = 2  # and those of the other models
TO_Q = "transformer_blocks.0.attn.to_q"
OWN = [
    Strategy("quantized_twice", (QUANTIZE, QUANTIZE)),
    Strategy("computed", (Step(StepKind.FUSE), Step(StepKind.QUANTIZE, scheme="fp8_compute"))),
    Strategy("compiled", (COMPILE,)),
]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(Settings(model="synthetic:tiny", device="cpu"), Strategies(OWN))
    yield session
    session.close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lora") / "a.safetensors", seed=0)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lora") / "b.safetensors", seed=1)


@pytest.fixture(scope="module")
def bench(session: Session, adapter: Path) -> Bench:
    return session.bench(adapters=[adapter])


def tiny(device: str = "cpu") -> Any:
    return build_synthetic("tiny", seed=0, device=device, weights_on=device)


def write(path: Path, seed: int) -> Path:
    dit = tiny().dit
    names = [name for name in linear_shapes(dit) if name.startswith("transformer_blocks")]
    return write_synthetic_adapter(path, weight_norms(dit, names), rank=8, seed=seed)


def by_hand(*adapters: tuple[Path, float], hotload: bool) -> Any:
    """DiffSynth's own way, without ours."""
    pipe = tiny()
    if hotload:
        pipe.enable_lora_hot_loading(pipe.dit)
    for path, scale in adapters:
        pipe.load_lora(pipe.dit, str(path), alpha=scale, hotload=hotload)
    return pipe


def weights(bench: Bench, strategy: str) -> dict[str, torch.Tensor]:
    """The weights of the Linears, as float32."""
    dit = bench.arm(strategy).pipeline.dit
    return {name: dit.get_submodule(name).weight.float() for name in linear_shapes(dit)}


def delta(path: Path) -> torch.Tensor:
    state = load_file(path)
    return state[f"{TO_Q}.lora_B.default.weight"].float() @ state[f"{TO_Q}.lora_A.default.weight"].float()


def attached(pipe: Any) -> dict[str, Any]:
    able = (layer for layer in pipe.dit.modules() if isinstance(layer, LoRAHotLoadMixin))
    return {layer.name: layer for layer in able if layer.lora_A_weights}


class TestRecords:
    @pytest.mark.parametrize(
        ("strategy", "expected"),
        [
            ("no_lora", {}),
            ("standard_lora", {"attach": (28, 34)}),
            ("quantize_then_lora", {"quantize[fp8_storage]": (34, 34), "attach": (28, 34)}),
            ("lora_then_quantize", {"attach": (28, 34), "quantize[fp8_storage]": (34, 34)}),
            ("fused", {"fuse": (28, 34)}),
            ("fused_then_quantize", {"fuse": (28, 34), "quantize[fp8_storage]": (34, 34)}),
            ("low_vram", {"attach": (28, 34), "quantize[fp8_storage]": (34, 34), "offload[stream]": None}),
            ("low_vram_optimized", {"fuse": (28, 34), "quantize[fp8_storage]": (34, 34), "offload[stream]": None}),
            ("quantize_then_fuse", {"quantize[fp8_storage]": (34, 34), "fuse": (28, 34)}),
            ("computed", {"fuse": (28, 34), "quantize[fp8_compute]": (34, 34)}),
            ("compiled", {"compile": (2, 2)}),
        ],
    )
    def test_name_the_steps_in_order_with_their_layers(
        self, bench: Bench, strategy: str, expected: dict[str, tuple[int, int] | None]
    ) -> None:
        records = bench.arm(strategy).setup
        assert [record.name for record in records] == ["build", *expected]
        for record, layers in zip(records[1:], expected.values(), strict=True):
            found = (record.effect.layers, record.effect.total)
            assert found == layers if layers else found[0] == found[1] > BLOCKS
        assert all(record.seconds > 0 and record.peak > 0 for record in records)

    def test_the_adapter_is_matched_whole(self, bench: Bench) -> None:
        (match,) = bench.arm("fused").matches
        assert (len(match.matched), match.unmatched, match.total) == (LORA_LAYERS, (), ALL_LAYERS)

    def test_an_adapter_of_ours_is_for_the_linears_of_the_blocks(self, session: Session) -> None:
        (match,) = session.bench().arm("fused").matches
        assert len(match.matched) == LORA_LAYERS
        assert all(name.startswith("transformer_blocks.") for name in match.matched)


class TestAttached:
    def test_is_what_diffsynth_attaches(self, session: Session, adapter: Path) -> None:
        ours = session.bench(adapters=[f"{adapter}:0.5"]).generate("standard_lora", session.request())
        theirs = session.shop.backend.generate(by_hand((adapter, 0.5), hotload=True), session.request())
        assert torch.equal(ours.latents, theirs.latents.float())

    def test_two_are_what_diffsynth_attaches(self, session: Session, adapter: Path, second: Path) -> None:
        ours = session.bench(adapters=[adapter, f"{second}:-0.25"]).generate("standard_lora", session.request())
        pipe = by_hand((adapter, 1.0), (second, -0.25), hotload=True)
        assert torch.equal(ours.latents, session.shop.backend.generate(pipe, session.request()).latents.float())

    def test_leaves_the_weights_alone(self, bench: Bench) -> None:
        plain, found = weights(bench, "no_lora"), weights(bench, "standard_lora")
        assert set(found) == set(plain)
        assert [name for name in plain if not torch.equal(found[name], plain[name])] == []

    @pytest.mark.parametrize("strategy", ["standard_lora", "quantize_then_lora", "lora_then_quantize", "low_vram"])
    def test_stays_with_its_scale_whatever_comes_after(
        self, session: Session, adapter: Path, strategy: str
    ) -> None:
        pipe = session.bench(adapters=[f"{adapter}:0.5"]).arm(strategy).pipeline
        state, layers = load_file(adapter), attached(pipe)
        assert len(layers) == LORA_LAYERS
        for name, layer in layers.items():
            (down,), (up,) = layer.lora_A_weights, layer.lora_B_weights
            product = up.float() @ down.float()
            expected = 0.5 * (
                state[f"{name}.lora_B.default.weight"].float() @ state[f"{name}.lora_A.default.weight"].float()
            )
            torch.testing.assert_close(product, expected)
            assert down.dtype is up.dtype is torch.bfloat16
        expected_dtype = torch.bfloat16 if strategy == "standard_lora" else FP8
        assert {layer.weight.dtype for layer in layers.values()} == {expected_dtype}

    def test_before_or_after_quantizing_is_the_same_where_nothing_is_compiled(
        self, session: Session, bench: Bench
    ) -> None:
        before, after = (
            bench.generate(name, session.request()).latents
            for name in ("lora_then_quantize", "quantize_then_lora")
        )
        assert torch.equal(before, after)


class TestFused:
    def test_is_what_diffsynth_fuses(self, session: Session, adapter: Path) -> None:
        ours = session.bench(adapters=[f"{adapter}:0.5"]).generate("fused", session.request())
        theirs = session.shop.backend.generate(by_hand((adapter, 0.5), hotload=False), session.request())
        assert torch.equal(ours.latents, theirs.latents.float())

    def test_two_are_what_diffsynth_fuses(self, session: Session, adapter: Path, second: Path) -> None:
        ours = session.bench(adapters=[adapter, f"{second}:-0.25"]).arm("fused").pipeline.dit.state_dict()
        theirs = by_hand((adapter, 1.0), (second, -0.25), hotload=False).dit.state_dict()
        assert set(ours) == set(theirs)
        assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []

    @pytest.mark.parametrize(
        ("scales", "total"), [((1.0,), 1.0), ((0.5,), 0.5), ((1.0, -0.25), 0.75), ((0.0,), 0.0)]
    )
    def test_adds_the_sum_of_the_scales(
        self, session: Session, adapter: Path, scales: tuple[float, ...], total: float
    ) -> None:
        stacked = session.bench(adapters=[f"{adapter}:{scale}" for scale in scales])
        change = weights(stacked, "fused")[TO_Q] - weights(stacked, "no_lora")[TO_Q]
        intended = delta(adapter)
        share = float((change * intended).sum() / intended.square().sum())
        assert share == pytest.approx(total, abs=0.02)

    def test_changes_the_layers_of_the_adapter_only(self, bench: Bench) -> None:
        plain, fused = weights(bench, "no_lora"), weights(bench, "fused")
        changed = {name for name in plain if not torch.equal(fused[name], plain[name])}
        assert changed == set(bench.arm("fused").matches[0].matched)
        assert len(changed) == LORA_LAYERS

    def test_nothing_is_left_attached(self, bench: Bench) -> None:
        for strategy in ("fused", "fused_then_quantize", "quantize_then_fuse"):
            assert attached(bench.arm(strategy).pipeline) == {}

    def test_then_quantized_is_the_sum_rounded_once(self, bench: Bench) -> None:
        fused, rounded = weights(bench, "fused"), weights(bench, "fused_then_quantize")
        assert [name for name in fused if not torch.equal(rounded[name], fused[name].to(FP8).float())] == []

    def test_quantized_first_is_rounded_twice(self, bench: Bench) -> None:
        right, wrong = weights(bench, "fused_then_quantize"), weights(bench, "quantize_then_fuse")
        fused = weights(bench, "fused")[TO_Q]
        assert {part.weight.dtype for part in _linears(bench, "quantize_then_fuse")} == {FP8}
        assert float((wrong[TO_Q] - fused).norm()) > 1.1 * float((right[TO_Q] - fused).norm())


class TestQuantized:
    def test_is_smaller_than_what_it_was_made_from(self, bench: Bench) -> None:
        arm = bench.arm("fused_then_quantize")
        assert {part.weight.dtype for part in _linears(bench, "fused_then_quantize")} == {FP8}
        assert arm.resident < 0.9 * arm.setup_peak.needed
        assert arm.resident < 0.9 * bench.arm("fused").resident

    @pytest.mark.parametrize("strategy", ["fused_then_quantize", "computed"])
    def test_generates_nearly_what_the_fused_one_does(self, session: Session, bench: Bench, strategy: str) -> None:
        found, expected = (bench.generate(name, session.request()).latents for name in (strategy, "fused"))
        error = float((found - expected).norm() / expected.norm())
        assert 0 < error < 0.2


def _linears(bench: Bench, strategy: str) -> list[torch.nn.Linear]:
    modules = bench.arm(strategy).pipeline.dit.modules()
    return [part for part in modules if isinstance(part, torch.nn.Linear)]


class TestFailures:
    def test_a_step_that_changes_nothing_is_named_and_the_same_again_at_once(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = (
            "strategy quantized_twice, step 2 (quantize[fp8_storage]): changed none of 34 layers; a step without "
            "effect is an error: check what the model and the steps before it left to do"
        )
        with pytest.raises(StrategyError) as caught:
            bench.arm("quantized_twice")
        assert str(caught.value) == line

        def never(*_: object, **__: object) -> None:
            raise AssertionError("built again")

        monkeypatch.setattr(bench.shop.backend, "build", never)
        with pytest.raises(LoraperfError) as caught_again:
            bench.arm("quantized_twice")
        assert str(caught_again.value) == line
        assert bench.arms["quantized_twice"].pipeline is None

    @pytest.mark.parametrize(
        ("scheme", "line"),
        [
            ("int3", "quantization scheme 'int3': allowed are auto, fp8_storage, fp8_compute, torchao_fp8_w8a8"),
            (
                "torchao_fp8_w8a8",
                "quantization scheme torchao_fp8_w8a8: CPU has no fp8 matrix product "
                "(compute capability 8.9 and later); use fp8_storage or auto",
            ),
        ],
    )
    def test_a_scheme_that_cannot_run_fails_what_it_is_for_only(self, scheme: str, line: str) -> None:
        other = Session(Settings(model="synthetic:tiny", device="cpu", scheme=scheme))
        for _ in range(2):
            with pytest.raises(LoraperfError) as caught:
                other.bench().arm("fused_then_quantize")
            assert str(caught.value) == line
        assert other.bench().arm("fused").pipeline is not None
        other.close()

    def test_an_adapter_that_matches_nothing_fails_each_strategy_with_both_sides(
        self, session: Session, tmp_path: Path
    ) -> None:
        norms = {"other_blocks.0.to_q": (4, 4, 1.0)}
        other = session.bench(adapters=[write_synthetic_adapter(tmp_path / "b.safetensors", norms, rank=2)])
        for name in ("fused", "standard_lora"):
            with pytest.raises(
                LoraperfError, match=r"no layer of the model is matched; the adapter has other_blocks\.0\.to_q"
            ):
                other.arm(name)
        assert other.arm("no_lora").pipeline is not None


class TestBuildFunctions:
    def test_are_asked_for_host_memory_where_there_is_no_card(self, session: Session) -> None:
        asked = []

        def build(device: str) -> Any:
            asked.append(device)
            return tiny(device)

        mine, request = session.bench(build), session.request().with_changes(height=64, width=64)
        for name in ("fused", "low_vram_optimized"):
            assert torch.equal(
                mine.generate(name, request).latents, session.bench().generate(name, request).latents
            )
        assert asked == ["cpu", "cpu"]

    def test_one_that_raises_fails_the_arm_and_is_not_called_again(self, session: Session) -> None:
        asked = []

        def broken(device: str) -> Any:
            asked.append(device)
            raise RuntimeError("no weights here")

        where = f"{Path(__file__).name}:{broken.__code__.co_firstlineno + 2}"
        line = f"the build function {broken.__qualname__} raised RuntimeError: no weights here ({where})"
        with pytest.raises(ModelError) as caught:
            session.bench(broken).arm("fused")
        with pytest.raises(LoraperfError) as again:
            session.bench(broken).arm("fused")
        assert (str(caught.value), str(again.value), asked) == (line, line, ["cpu"])


def test_what_one_arm_compiles_is_no_business_of_another(session: Session, adapter: Path) -> None:
    first, second = session.bench(adapters=[adapter]), Bench(session.shop, session.bench().model, [adapter])
    blocks = [bench.arm("compiled").pipeline.dit.transformer_blocks for bench in (first, second)]
    kind = type(blocks[0][0])
    codes = [[block.forward.__func__.__code__ for block in own] for own in blocks]
    # The blocks of a pipeline share what is compiled; code objects are compared by what they say.
    assert [len({id(code) for code in own}) for own in codes] == [1, 1]
    assert len({id(code) for code in (codes[0][0], codes[1][0], kind.forward.__code__)}) == 3
    assert codes[0][0] == codes[1][0] == kind.forward.__code__
    second.close()


def test_someones_own_forward_stays_when_it_is_compiled(session: Session) -> None:
    pipe = session.shop.backend.build(session.bench().model, session.device, on_cpu=False)
    block = pipe.dit.transformer_blocks[0]
    block.forward = own = functools.partial(type(block).forward, block)
    session.shop.backend.apply(pipe, COMPILE, ())
    assert block.forward is own
    assert "forward" in vars(pipe.dit.transformer_blocks[1])
