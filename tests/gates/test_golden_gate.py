"""Golden latents: real runs that store what they generated, and later ones whose outputs are held to it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

BASE = "--loraperf-baseline=base.json"
UPDATE = "--loraperf-update-baseline"
CPU = "--loraperf-device=cpu"

OURS = """
    import pytest
    from pytest_loraperf.backends.synthetic import build_synthetic

    def build_ours(device):
        return build_synthetic("tiny", seed={seed}, device=device, weights_on=device)

    @pytest.fixture(scope="session")
    def lora_model():
        return build_ours

    @pytest.fixture(scope="session")
    def lora_request():
        from pytest_loraperf.request import TINY_REQUEST
        return TINY_REQUEST
"""
SUITE = """
    def test_it(no_lora_pipeline):
        no_lora_pipeline(prompt="x", steps=2)
"""


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "400")


def weights(pytester: pytest.Pytester, seed: int) -> None:
    """The model of the project: another seed is other weights, as after a dependency that changes the picture."""
    pytester.makeconftest(OURS.format(seed=seed))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the baseline of the project is kept, which one run makes for all tests."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def stored(pytester: pytest.Pytester, made_once: Path) -> pytest.Pytester:
    """A project whose golden latents are stored."""
    weights(pytester, 0)
    pytester.makepyfile(SUITE)
    if not (made_once / "base.json").exists():
        made = pytester.runpytest_inprocess(CPU, BASE, UPDATE)
        made.assert_outcomes(passed=1)
        made.stdout.fnmatch_lines(["baseline *base.latents: stored golden latents of no_lora; commit them"])
        shutil.copytree(pytester.path / "base.latents", made_once / "base.latents")
        shutil.copy(pytester.path / "base.json", made_once)
    shutil.copytree(made_once, pytester.path, dirs_exist_ok=True)
    return pytester


def record(pytester: pytest.Pytester) -> dict[str, Any]:
    data = json.loads((pytester.path / "base.json").read_text())
    (found,) = (entry for entry in data["goldens"].values() if entry)
    return dict(found)


def file(pytester: pytest.Pytester) -> Path:
    (found,) = (pytester.path / "base.latents").iterdir()
    return found


def edit(pytester: pytest.Pytester, **values: Any) -> None:
    path = pytester.path / "base.json"
    data = json.loads(path.read_text())
    for entry in data["goldens"].values():
        if entry:
            entry.update(values)
    path.write_text(json.dumps(data))


def test_the_same_output_passes_and_other_weights_fail(stored: pytest.Pytester) -> None:
    found = record(stored)
    assert found["file"] == file(stored).name
    assert (found["shape"], found["stride"], found["subject"]["dtype"]) == ([1, 16, 8, 8], 1, "bfloat16")
    assert {"torch", "diffsynth"} <= set(found["made"]["versions"])
    before = file(stored).read_bytes()

    stored.runpytest_inprocess(CPU, BASE, "--loraperf-strict").assert_outcomes(passed=1)

    weights(stored, 1)
    result = stored.runpytest_inprocess(CPU, BASE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf golden: no_lora: the output is not that of *: relative L2 * to the golden latents, the limit is "
            "at most 0.02; versions and steps are those of then (torch *, diffsynth *); look for what changed, or "
            f"accept it with: pytest {CPU} {BASE} {UPDATE}",
            "*Captured loraperf golden call*",
            "relative L2 *(at most 0.02)",
            "values       1024 of 1024",
        ]
    )
    assert file(stored).read_bytes() == before

    accepted = stored.runpytest_inprocess(CPU, BASE, UPDATE)
    accepted.stdout.fnmatch_lines(["baseline *base.latents: stored golden latents of no_lora; commit them"])
    assert file(stored).read_bytes() != before
    stored.runpytest_inprocess(CPU, BASE).assert_outcomes(passed=1)


def test_an_update_keeps_what_still_holds_and_a_limit_that_was_set(stored: pytest.Pytester) -> None:
    before, text = file(stored).read_bytes(), (stored.path / "base.json").read_text()
    result = stored.runpytest_inprocess(CPU, BASE, UPDATE)
    result.stdout.fnmatch_lines(["baseline *: kept golden latents of no_lora, whose outputs still hold"])
    assert (file(stored).read_bytes(), (stored.path / "base.json").read_text()) == (before, text)
    edit(stored, max_rel_l2=9.0)
    weights(stored, 1)
    stored.runpytest_inprocess(CPU, BASE).assert_outcomes(passed=1)
    edit(stored, max_rel_l2=0.001)
    stored.runpytest_inprocess(CPU, BASE, UPDATE)
    assert record(stored)["max_rel_l2"] == 0.001
    assert file(stored).read_bytes() != before


def test_an_upgrade_is_told_and_does_not_hide_the_golden(stored: pytest.Pytester) -> None:
    made = record(stored)["made"]
    edit(stored, made={**made, "versions": {**made["versions"], "torch": "2.0.0"}})
    stored.runpytest_inprocess(CPU, BASE, "--loraperf-strict").assert_outcomes(passed=1)
    weights(stored, 1)
    result = stored.runpytest_inprocess(CPU, BASE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"*; since then torch was 2.0.0 and is {torch.__version__}; look for what changed*"]
    )


@pytest.mark.parametrize("by", ["option", "ini"])
def test_another_scheme_chosen_by_itself_is_another_output(pytester: pytest.Pytester, by: str) -> None:
    """A strategy of the project's own that is quantized where it was not: the name is what is held."""
    strategy = """
        from pytest_loraperf import FUSE, Step, Strategy

        def pytest_loraperf_strategies(config):
            return [Strategy("ours", ({steps}))]
    """
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lora_strategy("ours")
        def test_it(lora_pipeline):
            lora_pipeline(steps=2)
    """)
    pytester.makeconftest(strategy.format(steps="FUSE,"))
    arguments: tuple[str, ...] = (CPU, BASE)
    if by == "ini":
        pytester.makeini("[pytest]\nloraperf_baseline = base.json\nloraperf_device = cpu")
        arguments = ()
    pytester.runpytest_inprocess(*arguments, UPDATE).assert_outcomes(passed=1)
    pytester.makeconftest(strategy.format(steps='FUSE, Step("quantize", scheme="fp8_storage")'))
    result = pytester.runpytest_inprocess(*arguments)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*golden: ours: *; since then the steps were fuse and are fuse → quantize[[]fp8_storage[]]; look for*"]
    )


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def pickle(path: Path) -> None:
    torch.save({"latents": torch.zeros(1024)}, path)


def point(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (Path.unlink, "missing", "are not there; take the file from git, or make them anew with: pytest *"),
        (
            truncate,
            "damaged",
            "cannot be used: its sha256 is *…, and its record says *…; take the file from git, or*",
        ),
        (
            pickle,
            "damaged",
            "cannot be used: it is a pickle, which can run code when loaded, and is not opened; *",
        ),
        (point, "damaged", "cannot be used: it is a pointer of git LFS, so fetch the files with git lfs pull; *"),
        (folder, "damaged", "cannot be used: it cannot be read (Is a directory); take the file from git, or *"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_fails_in_ci(
    stored: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, damage: Any, code: str, message: str
) -> None:
    name = file(stored).name
    damage(file(stored))
    told = f"the golden latents of no_lora (base.latents/{name}) {message}"
    loose = stored.runpytest_inprocess(CPU, BASE)
    loose.assert_outcomes(passed=1)
    loose.stdout.fnmatch_lines([f"warning: {told}"])
    if code == "damaged":
        monkeypatch.setenv("CI", "true")
    strict = stored.runpytest_inprocess(CPU, BASE, *([] if code == "damaged" else ["--loraperf-strict"]))
    strict.assert_outcomes(failed=1)
    strict.stdout.fnmatch_lines([f"loraperf golden-{code}: {told}"])
    if damage in (truncate, Path.unlink):
        stored.runpytest_inprocess(CPU, BASE, UPDATE).assert_outcomes(passed=1)
        stored.runpytest_inprocess(CPU, BASE, "--loraperf-strict").assert_outcomes(passed=1)


def test_values_that_are_not_finite_are_told(stored: pytest.Pytester) -> None:
    values = load_file(file(stored))
    values["latents"][0] = float("nan")
    save_file(values, file(stored))
    edit(stored, sha256=hashlib.sha256(file(stored).read_bytes()).hexdigest())
    result = stored.runpytest_inprocess(CPU, BASE, "--loraperf-strict")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["loraperf golden-damaged: *cannot be used: 1 of its 1024 values are not finite; *"]
    )


@pytest.mark.parametrize("arguments", [(), (UPDATE,)])
def test_an_output_that_is_not_finite_fails_and_is_not_stored(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    pytester.makeconftest(
        OURS.format(seed=0).replace(
            'return build_synthetic("tiny", seed=0, device=device, weights_on=device)',
            'pipe = build_synthetic("tiny", seed=0, device=device, weights_on=device)\n'
            "        next(pipe.dit.parameters()).data.fill_(float('nan'))\n"
            "        return pipe",
        )
    )
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_inprocess(CPU, BASE, *arguments)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "loraperf golden-not-finite: no_lora: * of 1024 values of the latents are not finite, so nothing can be held*"
        ]
    )
    assert not (pytester.path / "base.latents").exists()


@pytest.mark.parametrize(
    ("arguments", "outcome"), [((), {"passed": 1}), (("-o", "loraperf_strict=1"), {"failed": 1})]
)
def test_none_is_told(pytester: pytest.Pytester, arguments: tuple[str, ...], outcome: dict[str, int]) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_inprocess(CPU, BASE, *arguments)
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(
        [f"*no golden latents of no_lora on * with this model and request; make them anew with: pytest {CPU} *"]
    )


def test_a_request_without_a_seed_has_none(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE.replace("steps=2", "steps=2, seed=None"))
    result = pytester.runpytest_inprocess(CPU, BASE, UPDATE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["warning: no golden latents of no_lora, since its request has no seed (seed=None)*"]
    )
    assert not (pytester.path / "base.latents").exists()


def test_what_a_failing_test_generated_is_not_stored(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.vram_budget("1KB")
        def test_it(no_lora_pipeline):
            no_lora_pipeline(steps=2)
    """)
    result = pytester.runpytest_inprocess(CPU, BASE, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "baseline *: nothing was accepted, since no test with a gate on time passed, nor one that generates",
            "baseline *: golden latents of no_lora are not stored, since a gate of their tests failed",
        ]
    )
    assert not (pytester.path / "base.latents").exists()


def test_a_folder_that_cannot_be_written_fails_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    (pytester.path / "base.latents").write_text("")
    result = pytester.runpytest_inprocess(CPU, BASE, UPDATE)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["error: golden latents *base.latents/no_lora-*: cannot be written: *"])
    assert not (pytester.path / "base.json").exists()


def test_workers_store_and_hold_them_too(pytester: pytest.Pytester) -> None:
    weights(pytester, 0)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("prompt", ["a", "b"])
        def test_it(no_lora_pipeline, prompt):
            no_lora_pipeline(prompt=prompt, steps=2)

        def test_ends_badly(no_lora_pipeline):
            no_lora_pipeline(prompt="c", steps=2)
            assert False
    """)
    made = pytester.runpytest_subprocess(CPU, BASE, UPDATE, "-n2")
    made.assert_outcomes(passed=2, failed=1)
    made.stdout.fnmatch_lines(["baseline *base.latents: stored golden latents of no_lora; commit them"])
    assert len(list((pytester.path / "base.latents").iterdir())) == 2
    held = pytester.runpytest_subprocess(CPU, BASE, "--loraperf-strict", "-n2")
    held.assert_outcomes(passed=2, failed=1)
    weights(pytester, 1)
    pytester.runpytest_subprocess(CPU, BASE, "-n2").assert_outcomes(failed=3)
