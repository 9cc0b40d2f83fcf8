"""Wrong options, markers and settings: one clear line, and the exit status of pytest's usage errors."""

from __future__ import annotations

import os

import pytest

USAGE = pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("way", ["option", "ini"])
@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--gpu-budget", "14", "size '14': write a positive number and a unit, such as 14GB or 512MiB"),
        ("--gpu-budget", "lots", "size 'lots': write a positive number and a unit, such as 14GB or 512MiB"),
        ("--loraperf-compile", "yes", "got 'yes'; allowed are auto, on, off"),
        ("--loraperf-offload", "disk", "got 'disk'; allowed are auto, stream, diffsynth"),
        ("--loraperf-offload-limit", "6", "size '6': write a positive number and a unit, such as 14GB or 512MiB"),
        ("--loraperf-inconclusive", "pass", "got 'pass'; allowed are fail, warn"),
        ("--loraperf-rounds", "1", "got '1'; a whole number of at least 3 is allowed"),
        ("--loraperf-rounds", "many", "got 'many'; a whole number of at least 3 is allowed"),
        ("--loraperf-max-seconds", "5", "duration '5': write a positive number and a unit"),
        ("--loraperf-scheme", "int3", "got 'int3'; allowed are auto, fp8_storage, fp8_compute, torchao_fp8_w8a8"),
        ("--loraperf-device", "gpu", "got 'gpu'; allowed are auto, cpu, cuda and cuda:N"),
        ("--loraperf-model", "tiny", "got 'tiny'; allowed are auto, synthetic:tiny, synthetic:full, "),
        ("--loraperf-model", "synthetic:huge", "model: got 'synthetic:huge'; synthetic models are synthetic:tiny"),
    ],
)
def test_wrong_values(pytester: pytest.Pytester, way: str, flag: str, value: str, message: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    ini = flag.removeprefix("--").replace("-", "_")
    if way == "ini":
        pytester.makeini(f"[pytest]\n{ini} = {value}")
    result = pytester.runpytest(*([f"{flag}={value}"] if way == "option" else []))
    source = flag if way == "option" else f"ini value {ini}"
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: loraperf: {source}: {message.replace('[', '[[]')}*"])
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize(
    ("flag", "value", "needed"),
    [
        ("--loraperf-strict", "", "--loraperf-baseline"),
        ("--loraperf-baseline-days", "30", "--loraperf-baseline"),
        ("--loraperf-lint-select", "LRP102", "--loraperf-lint"),
        ("--loraperf-lint-ignore", "LRP102", "--loraperf-lint"),
    ],
)
def test_what_does_nothing_by_itself_is_refused(
    pytester: pytest.Pytester, flag: str, value: str, needed: str
) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest(f"{flag}={value}" if value else flag)
    assert result.ret == USAGE
    result.stderr.fnmatch_lines([f"ERROR: loraperf: {flag}: it does nothing without {needed}; give that too"])
    # An ini keeps it for the runs that name the other.
    pytester.makeini(f"[pytest]\n{flag.removeprefix('--').replace('-', '_')} = {value or 'true'}")
    pytester.runpytest().assert_outcomes(passed=1)
    pytester.makeini(f"[pytest]\naddopts = {flag}{'=' if value else ''}{value}")
    pytester.runpytest().assert_outcomes(passed=1)


def test_a_budget_on_what_stays_needs_a_pipeline(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.vram_budget("1kB", phase="resident")
        def test_own():
            pass
    """)
    result = pytester.runpytest()
    assert result.ret == USAGE
    said = "phase='resident' is of a pipeline that stays built, and the test uses none; use its fixture, or hold the *"
    result.stderr.fnmatch_lines([f"*test_own: @pytest.mark.vram_budget: {said}"])


@pytest.mark.parametrize(("fixture", "outcome"), [("tmp_path", "failed"), ("fused_pipeline", "passed")])
def test_a_pipeline_that_is_asked_for_late_is_one(pytester: pytest.Pytester, fixture: str, outcome: str) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.vram_budget("3MB", phase="resident")
        def test_late(request):
            request.getfixturevalue("{fixture}")
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.assert_outcomes(**{outcome: 1})
    if outcome == "failed":
        result.stdout.fnmatch_lines(
            ["*vram_budget: phase='resident' is of a pipeline that stays built, and the *"]
        )


def test_an_empty_budget_is_no_budget_but_an_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--gpu-budget=")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["ERROR: loraperf: --gpu-budget: size '': write a positive number and a unit*"])


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest reads types from [tool.pytest] since 9.0")
@pytest.mark.parametrize(
    ("line", "what_to_do"),
    [
        ("loraperf_rounds = 30", "write it in quotes"),
        ('loraperf_lint = "true"', "write true or false"),
        ('loraperf_adapter = "a.safetensors"', 'write [[]"…"]'),
    ],
)
def test_a_value_of_another_type_in_toml(pytester: pytest.Pytester, line: str, what_to_do: str) -> None:
    pytester.makepyprojecttoml(f"[tool.pytest]\n{line}")
    result = pytester.runpytest()
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [f"ERROR: loraperf: ini value {line.split(maxsplit=1)[0]}: * expects a *; {what_to_do}"]
    )


def test_the_command_line_goes_before_the_ini(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngpu_budget = 1KB\nloraperf_device = cpu")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--gpu-budget=2KB")
    result.stdout.fnmatch_lines(["loraperf: *--gpu-budget=2 KB (2048 bytes)*"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "model",
            "syntetic:tiny",
            "model: 'syntetic:tiny' cannot be imported: *'syntetic'; allowed are synthetic:tiny, *",
        ),
        ("model", "pretrained:nowhere", "model: 'pretrained:nowhere' is neither a folder here nor a hub id *"),
        (
            "model",
            "no.such.module:build",
            "model: 'no.such.module:build' cannot be imported: ModuleNotFoundError*",
        ),
        ("model", "synthetic:full", "synthetic:full has 20.43 B parameters and needs a CUDA device; *"),
        ("adapter", "nowhere.safetensors", "adapter *nowhere.safetensors: cannot be read: No such file *"),
        ("adapter", "a.safetensors:big", "adapter *a.safetensors:big': the scale 'big' is no number; *"),
        ("adapter", "weights.ckpt", "adapter *weights.ckpt: .ckpt files are pickles, which can run code *"),
        ("scheme", "fp8_loaded", "quantization scheme 'fp8_loaded': allowed are auto, fp8_storage, *"),
        ("scheme", "torchao_fp8_w8a8", "quantization scheme torchao_fp8_w8a8: CPU has no fp8 matrix product*"),
    ],
)
@pytest.mark.parametrize("way", ["option", "ini"])
def test_what_cannot_be_built_fails_the_test_in_one_line(
    pytester: pytest.Pytester, way: str, option: str, value: str, message: str
) -> None:
    ini = f"\nloraperf_{option} = {value}" if way == "ini" else ""
    pytester.makeini(f"[pytest]\nloraperf_device = cpu{ini}")
    pytester.makepyfile("""
        def test_it(lora_then_quantize_pipeline):
            lora_then_quantize_pipeline()

        def test_other():
            pass
    """)
    result = pytester.runpytest(*([f"--loraperf-{option}={value}"] if way == "option" else []))
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([f"loraperf: {message}"])
    assert "Traceback" not in result.stdout.str()
    assert "During handling" not in result.stdout.str()


MARKERS = """
    import pytest

    @pytest.mark.{mark}
    def test_it(lora_pipeline):
        lora_pipeline()
"""


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (
            "latency_budget()",
            '@pytest.mark.latency_budget: takes either a limit, such as "1.5s", or ratio= and of=',
        ),
        ('latency_budget("1.5s", ratio=2, of="fused")', "@pytest.mark.latency_budget: takes either a limit, *"),
        ("latency_budget(ratio=2)", "@pytest.mark.latency_budget: ratio= and of= go together, *"),
        ('latency_budget("fast")', "@pytest.mark.latency_budget: duration 'fast': write a positive number *"),
        (
            'latency_budget(ratio=-1, of="fused")',
            "@pytest.mark.latency_budget: ratio -1: write a positive number*",
        ),
        (
            'latency_budget(max="1s")',
            "@pytest.mark.latency_budget: got an unexpected keyword argument 'max'; it is *",
        ),
        ('vram_budget("14")', "@pytest.mark.vram_budget: size '14': write a positive number and a unit, *"),
        ('vram_budget("1GB", phase="late")', "@pytest.mark.vram_budget: phase='late'; the phases are setup, *"),
        ('faster_than("fused", by="100%")', "@pytest.mark.faster_than: percentage '100%': write at least 0% *"),
        ("faster_than(1)", "@pytest.mark.faster_than: reference=1; the name of a strategy or workload is allowed"),
        ('faster_than("fuzed")', "unknown strategy 'fuzed'; did you mean fused? The strategies are *"),
        ('output_equivalent("fused", rel_l2=-1)', "@pytest.mark.output_equivalent: rel_l2=-1; a number *"),
        ('output_equivalent("fused", cosine=2)', "@pytest.mark.output_equivalent: cosine=2; a number from -1 *"),
        (
            'output_equivalent("fused", psnr="30")',
            "@pytest.mark.output_equivalent: psnr='30'; a number is allowed",
        ),
        ("lora_strategy()", "@pytest.mark.lora_strategy: takes names of strategies, got ()"),
        ('lora_strategy("fuzed")', "unknown strategy 'fuzed'; did you mean fused? The strategies are *"),
        (
            'output_equivalent("standard_lora")',
            "@pytest.mark.output_equivalent: compares standard_lora with itself; say with lora_strategy *",
        ),
        (
            'latency_budget(ratio=1.1, of="standard_lora")',
            "@pytest.mark.latency_budget: compares standard_lora with itself; *",
        ),
        ('needs_gpu("24GB")', "@pytest.mark.needs_gpu: too many positional arguments; it is needs_gpu(*"),
        ('needs_gpu(capability="new")', "@pytest.mark.needs_gpu: capability='new'; write it as \"8.9\""),
    ],
)
def test_wrong_markers_are_one_usage_error(pytester: pytest.Pytester, mark: str, message: str) -> None:
    pytester.makepyfile(MARKERS.format(mark=mark))
    result = pytester.runpytest()
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [
            "ERROR: loraperf: 1 test has a marker that cannot be used:",
            f"  *::test_it*: {message.replace('[', '[[]')}",
        ]
    )


def test_all_wrong_markers_are_listed_at_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.latency_budget()
        def test_a(fused_pipeline):
            pass

        @pytest.mark.latency_budget("1s")
        def test_b():
            pass

        @pytest.mark.lora_strategy("fused")
        def test_c():
            pass
    """)
    result = pytester.runpytest()
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [
            "ERROR: loraperf: 3 tests have markers that cannot be used:",
            "  *::test_a: *",
            "  *::test_b: @pytest.mark.latency_budget: needs lora_pipeline, a strategy's own fixture or gpu_workload in "
            "the test",
            "  *::test_c: @pytest.mark.lora_strategy: the test does not use the fixture lora_pipeline",
        ]
    )


def test_gates_that_cannot_fail_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.faster_than("fused")
        @pytest.mark.output_equivalent(to="fused")
        def test_own(fused_pipeline):
            pass

        @pytest.mark.lora_strategy("no_lora")
        @pytest.mark.lora_effect(min_gain=0.5)
        def test_control(lora_pipeline):
            pass

        @pytest.mark.lora_strategy("fused", "standard_lora")
        @pytest.mark.output_equivalent(to="standard_lora")
        def test_one_of_several(lora_pipeline):
            pass

        @pytest.mark.faster_than("fused")
        def test_callable(fused_pipeline, gpu_workload):
            pass
    """)
    result = pytester.runpytest("--co")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        [
            "ERROR: loraperf: 2 tests have markers that cannot be used:",
            "  *::test_own: @pytest.mark.faster_than and output_equivalent: compares fused with itself; *",
            "  *::test_control[[]no_lora]: @pytest.mark.lora_effect: no_lora has no LoRA; name a strategy *",
        ]
    )


def test_a_skip_is_told_of_at_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.needs_gpu(capability="99.0")
        def test_it():
            pass
    """)
    result = pytester.runpytest("-rs", "--loraperf-device=cpu")
    result.stdout.fnmatch_lines(["SKIPPED [[]1] test_a_skip_is_told_of_at_its_test.py:3: needs_gpu: *"])


def test_markers_show_what_they_take(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.lora_strategy(*names): run the test once for each strategy*",
            "@pytest.mark.latency_budget(limit=None, *, ratio=None, of=None): at most*",
            '@pytest.mark.vram_budget(limit, *, phase="runtime"): at most*',
            '@pytest.mark.faster_than(reference, *, by="0%"): takes less time*',
            "@pytest.mark.output_equivalent(to, *, rel_l2=None*",
            "@pytest.mark.needs_gpu(*, vram=None, capability=None): skip unless*",
        ]
    )


def test_strict_markers_know_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MARKERS.format(mark='lora_strategy("fused")'))
    assert pytester.runpytest("--strict-markers", "--co", "-q").ret == pytest.ExitCode.OK


def test_a_build_function_that_raises_is_one_line_and_the_rest_is_kept(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture(scope="session")
        def lora_model():
            def build_ours(device):
                raise RuntimeError("weights.bin not found\\nsecond line")
            return build_ours

        def test_it(fused_pipeline):
            pass
    """)
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-json=out.json")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["loraperf: the build function *build_ours raised RuntimeError: weights.bin not found (*.py:*)"]
    )
    assert '"error": "the build function' in (pytester.path / "out.json").read_text()


def test_an_unknown_request_field_names_the_fields(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(fused_pipeline):
            fused_pipeline(num_inference_steps=4)

        def test_zero(fused_pipeline):
            fused_pipeline(steps=0)

        def test_one(fused_pipeline):
            fused_pipeline(steps=1)

        def test_no_image(fused_pipeline):
            fused_pipeline(edit_image="nowhere.png")
    """)
    result = pytester.runpytest("--loraperf-device=cpu")
    result.stdout.fnmatch_lines(
        [
            "loraperf: request: no field num_inference_steps; the fields are prompt, height, width, steps, *",
            "loraperf: request: steps=0; a positive whole number is allowed",
            "loraperf: request: steps=1; QwenImagePipeline's scheduler gives NaN below 2",
            "loraperf: request: edit_image 'nowhere.png' cannot be read: *",
        ]
    )


def test_results_that_cannot_be_written_are_told_before_anything_runs(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("file").write_text("")
    result = pytester.runpytest("--loraperf-json=file/out.json")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["ERROR: loraperf: --loraperf-json=file/out.json: cannot be written: *"])


def test_a_file_that_is_no_file_is_refused_before_anything_is_measured(pytester: pytest.Pytester) -> None:
    os.mkfifo(pytester.path / "pipe")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--loraperf-json=pipe")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(
        ["ERROR: loraperf: --loraperf-json=pipe: cannot be written: it is there and no regular file"]
    )
    assert (pytester.path / "pipe").is_fifo()


def test_a_link_to_a_file_that_is_not_there_yet_stays_a_link(pytester: pytest.Pytester) -> None:
    (pytester.path / "out.json").symlink_to(pytester.path / "there.json")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest("--loraperf-json=out.json").assert_outcomes(passed=1)
    assert (pytester.path / "out.json").is_symlink()
    assert (pytester.path / "there.json").is_file()


def test_only_collecting_leaves_the_results(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    for name in ("out.json", "out.json.partial"):
        (pytester.path / name).write_text("kept")
    assert pytester.runpytest("--loraperf-json=out.json", "--collect-only").ret == pytest.ExitCode.OK
    assert [(pytester.path / name).read_text() for name in ("out.json", "out.json.partial")] == ["kept", "kept"]


def test_wherever_a_test_goes_the_results_stay(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import os

        def test_it(tmp_path):
            os.chdir(tmp_path)
    """)
    pytester.runpytest("--loraperf-json=out.json").assert_outcomes(passed=1)
    assert (pytester.path / "out.json").is_file()
