"""Another backend: on the command line and in the ini, and in the results."""

from __future__ import annotations

import json

import pytest

# The inner runs share this process, and what it imports of torch can be imported only once in it.
import pytest_loraperf.backends.diffusers  # noqa: F401

TEST = """
    def test_it(fused_pipeline):
        assert type(fused_pipeline.pipeline).__module__.startswith("diffusers")
        fused_pipeline()
"""


@pytest.mark.parametrize("way", ["option", "ini"])
def test_the_backend_is_used_and_named_in_the_results(pytester: pytest.Pytester, way: str) -> None:
    pytester.makepyfile(TEST)
    if way == "ini":
        pytester.makeini("[pytest]\nloraperf_backend = diffusers")
    options = ["--loraperf-backend=diffusers"] if way == "option" else []
    result = pytester.runpytest("--loraperf-device=cpu", "--loraperf-json=out.json", *options)
    result.assert_outcomes(passed=1)
    found = json.loads((pytester.path / "out.json").read_text())
    assert found["machine"]["backend"].startswith("diffusers ")


def test_a_scheme_of_another_backend_is_one_clear_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(low_vram_pipeline): low_vram_pipeline()")
    result = pytester.runpytest(
        "--loraperf-device=cpu", "--loraperf-backend=diffusers", "--loraperf-offload=stream"
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*offload scheme 'stream': allowed are group"])
    assert "Traceback" not in result.stdout.str()
