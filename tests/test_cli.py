from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_loraperf.cli import main
from pytest_loraperf.commands.exits import BY_COMMAND
from pytest_loraperf.report.results import Machine, Results, StrategyResult, write_results

TINY = ["bench", "--model", "synthetic:tiny", "--device", "cpu", "--rounds", "3"]


def test_bench_measures_against_the_reference_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "bench.json"
    files = ["--json", str(out), "--benchmark-json", str(tmp_path / "b.json")]
    assert main([*TINY, "--strategies", "fused", *files, "--steps", "3", "--prompt", "a ghost"]) == 0
    benchmarks = json.loads((tmp_path / "b.json").read_text())["benchmarks"]
    assert [each["fullname"] for each in benchmarks] == ["synthetic:tiny::standard_lora", "synthetic:tiny::fused"]
    data = json.loads(out.read_text())
    fused = data["strategies"]["fused"]
    assert data["command"].startswith("loraperf bench --model synthetic:tiny")
    assert (data["request"]["steps"], data["request"]["prompt"]) == (3, "a ghost")
    assert (len(fused["samples_s"]), fused["ratio"]["of"]) == (3, "standard_lora")
    assert fused["output"]["reference"] == "standard_lora"
    assert fused["output"]["effect_kept"] > 0.3
    text = capsys.readouterr().out
    assert text.startswith("synthetic:tiny on CPU (cpu), torch ")
    assert "fused" in text
    assert "standard_lora" in text


def test_bench_over_the_budget_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--strategies", "standard_lora", "--gpu-budget", "1KB"]) == 1
    assert "loraperf gpu-budget: standard_lora needs " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "fuzed"], "unknown strategy 'fuzed'; did you mean fused?"),
        (["--model", "tiny"], "--model: got 'tiny'; allowed are auto, synthetic:tiny"),
        (["--gpu-budget", "14"], "--gpu-budget: size '14': write a positive number and a unit"),
        (["--rounds", "1"], "--rounds: got '1'; a whole number of at least 3 is allowed"),
        (["--device", "gpu"], "--device: got 'gpu'; allowed are auto, cpu, cuda and cuda:N"),
        (["--height", "0"], "request: height=0; a positive whole number is allowed"),
        (["--adapter", "a.safetensors:big"], "the scale 'big' is no number"),
        (["--json", "/proc/nowhere/out.json"], "--json=/proc/nowhere/out.json: cannot be written"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("loraperf: ")
    assert message in line


def test_a_strategy_that_cannot_be_built_costs_the_others_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    scheme = ["--scheme", "torchao_fp8_w8a8"]
    assert main([*TINY, "--strategies", "fused_then_quantize,fused", *scheme, "--json", str(out)]) == 1
    assert "CPU has no fp8 matrix product" in capsys.readouterr().out
    assert json.loads(out.read_text())["strategies"]["fused"]["latency"]["rounds"] == 3


def test_an_unknown_option_is_usage() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--speed"])


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pytest_loraperf.cli import main\ntry: main(['bench', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(int(bool({'torch', 'numpy', 'diffsynth'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def results_of(*seconds: float) -> Results:
    return Results(
        plugin_version="0.1.0",
        created="today",
        machine=Machine(device="cuda:0", name="a card", torch="2.15"),
        model="synthetic:tiny",
        request={},
        strategies={"fused": StrategyResult(samples_s=seconds)},
    )


@pytest.mark.parametrize(
    ("times", "code"), [((1.0, 1.0), 0), ((1.0, 1.2), 1), ((1.0, 1.03), 0)], ids=["same", "slower", "within"]
)
def test_compare_exits_by_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], times: tuple[float, float], code: int
) -> None:
    files = [str(tmp_path / f"{name}.json") for name in ("base", "new")]
    for file, seconds in zip(files, times, strict=True):
        write_results(Path(file), results_of(*(seconds * (1 + i / 1000) for i in range(9))))
    assert main(["compare", *files]) == code
    assert "fused" in capsys.readouterr().out


def test_compare_that_cannot_tell_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "two.json")
    write_results(Path(file), results_of(1.0, 1.1))
    assert main(["compare", file, file]) == 3
    assert "INCONCLUSIVE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json", "nowhere.json"], "loraperf: results nowhere.json: "),
        (["a", "b", "--max-slowdown", "5"], "loraperf: --max-slowdown: percentage '5': "),
    ],
)
def test_compare_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_doctor_says_what_this_machine_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "device" in said
    assert "diffsynth" in said


def test_doctor_with_a_device_of_another_name_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "gpu"]) == 2
    assert capsys.readouterr().err == "loraperf: --device: got 'gpu'; allowed are auto, cpu, cuda and cuda:N\n"


def test_doctor_finds_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cuda:99"]) == 1
    assert "problem" in capsys.readouterr().out


CALIBRATE = ["calibrate", "--replays", "20", "--max-rounds", "12"]


def test_calibrate_on_simulated_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calibration.json"
    assert main([*CALIBRATE, "--simulated-only", "--json", str(out)]) == 0
    assert "Gaussian" in capsys.readouterr().out
    assert json.loads(out.read_text())["kind"] == "calibration"


def test_calibrate_records_this_machine_and_replays_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recording.json"
    tiny = ["--model", "synthetic:tiny", "--device", "cpu", "--rounds", "12", "--slowdowns", "10%"]
    main([*CALIBRATE, *tiny, "--record", str(file)])
    recording = json.loads(file.read_text())
    assert {name: len(seconds) for name, seconds in recording["arms"].items()} == {
        "+0%": 12,
        "+0% again": 12,
        "+10%": 12,
    }
    capsys.readouterr()
    main([*CALIBRATE, "--replay", str(file)])
    assert "recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slowdowns", "five"], "loraperf: --slowdowns: percentage 'five': write at least 0%"),
        (["--strategy", "fuzed"], "loraperf: unknown strategy 'fuzed'; did you mean fused?"),
        (["--replay", "nowhere.json"], "loraperf: recording nowhere.json: cannot be read: No such file"),
        (["--height", "0"], "loraperf: request: height=0; a positive whole number is allowed"),
    ],
)
def test_calibrate_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    tiny = ["--model", "synthetic:tiny", "--device", "cpu", "--rounds", "12"]
    assert main([*CALIBRATE, *tiny, *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


WRONG = "pipe.enable_vram_management(enable_dit_fp8_computation=True)\npipe.load_lora(pipe.dit, lora_path)\n"


@pytest.mark.parametrize(("lines", "code"), [(WRONG, 1), ("".join(reversed(WRONG.splitlines(keepends=True))), 0)])
def test_lint_finds_the_wrong_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, code: int
) -> None:
    file = tmp_path / "app.py"
    file.write_text(lines, encoding="utf-8")
    assert main(["lint", str(tmp_path)]) == code
    assert ("LRP102" in capsys.readouterr().out) == bool(code)


def test_lint_as_json_and_what_is_selected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "app.py"
    file.write_text(WRONG, encoding="utf-8")
    assert main(["lint", str(file), "--format", "json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert sorted(found) == ["code", "col", "line", "message", "name", "path"]
    assert (found["code"], found["line"], found["name"]) == ("LRP102", 2, "attach-after-quantize")
    assert main(["lint", str(file), "--ignore", "LRP102"]) == 0
    assert main(["lint", str(file), "--select", "LRP103-LRP109"]) == 0


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--select", "LRP999"]])
def test_lint_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", *arguments]) == 2
    assert capsys.readouterr().err.startswith("loraperf: ")


def test_a_folder_without_python_is_not_linted_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebook.ipynb").write_text("{}")
    assert main(["lint", str(tmp_path)]) == 2
    told = f"loraperf: no Python file in {tmp_path}: name files, or folders that have some\n"
    assert capsys.readouterr().err == told


def test_the_formats_are_those_that_the_linter_has() -> None:
    from pytest_loraperf.commands.arguments import LINT_FORMATS
    from pytest_loraperf.order.lint.formats import FORMATS

    assert tuple(FORMATS) == LINT_FORMATS


def test_a_reader_that_goes_away_gets_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(WRONG, encoding="utf-8")
    words = [sys.executable, "-m", "pytest_loraperf.cli", "lint", str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        said = command.stderr.read()
    assert (command.returncode, said) == (141, "")


def test_letters_that_the_terminal_has_not_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(WRONG.replace("\n", "  # 名\n"), encoding="utf-8")
    words = [sys.executable, "-m", "pytest_loraperf.cli", "lint", str(file)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=ascii_only)
    assert (done.returncode, done.stderr) == (1, "")
    assert "# ?" in done.stdout


def test_an_output_that_takes_nothing_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(WRONG, encoding="utf-8")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        words = [sys.executable, "-m", "pytest_loraperf.cli", "lint", str(file)]
        done = subprocess.run(words, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "loraperf: the output cannot be written: No space left on device\n"


def test_bench_plays_no_card_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--gpu-budget-mode", "cap", "--gpu-budget", "14GB"]) == 2
    assert capsys.readouterr().err.startswith(
        "loraperf: --gpu-budget-mode=cap: no CUDA device here, and a small card is played by a larger one"
    )


@pytest.mark.parametrize("flag", ["--gpu-leak-limit", "--baseline", "--update-baseline", "--strict", "--gpus"])
def test_bench_takes_no_option_that_it_would_not_heed(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*TINY, f"{flag}=1MB"])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("command", BY_COMMAND)
def test_help_ends_with_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    assert said.endswith("and with 2 on wrong usage.")
    assert all(f"with {code} when {meaning}" in said for code, meaning in BY_COMMAND[command].items())


def test_every_command_has_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = re.findall(r"^    (\w+)\b", capsys.readouterr().out, re.MULTILINE)
    assert sorted(shown) == sorted(BY_COMMAND)


def test_messages_name_the_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--model", "synthetic:tiny", "--device", "cuda:99"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "--device=cpu" in told
    assert "--loraperf-" not in told


def test_the_table_names_the_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--strategies", "low_vram", "--offload-limit", "1KB"]) == 1
    told = capsys.readouterr().out
    assert "raise --offload-limit or --gpu-budget" in " ".join(told.split())
    assert "--loraperf-" not in told


def test_a_build_function_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here_alone.py").write_text("def build(device): return 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["bench", "--model", "here_alone:build", "--device", "cpu", "--strategies", "fused"]) == 1
    assert "the build function here_alone:build returned int" in capsys.readouterr().out
    assert sys.path[-1] == str(tmp_path)
    assert main(["bench", "--model", "nowhere_at_all:build", "--device", "cpu"]) == 2
    assert "No module named 'nowhere_at_all'; allowed are " in capsys.readouterr().err
