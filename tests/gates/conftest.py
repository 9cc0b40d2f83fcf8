from __future__ import annotations

# The inner runs of pytester share this process, in which torch and what registers operators with it can be imported
# only once: an inner run that is the first to import them lets the next one crash.
import diffsynth.pipelines.qwen_image  # noqa: F401

# Hypothesis's own plugin imports it at the end of each inner run, which would take as long as the run itself.
import hypothesis.strategies  # noqa: F401
import pytest
import torchao.quantization  # noqa: F401

# An inner run that is the first to import a module leaves its package with a module that later runs do not use.
import pytest_loraperf.backends.diffsynth  # noqa: F401

CLOCK = """
    import pytest
    from pytest_loraperf.fixtures import SESSION

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

        def spend(self, seconds):
            self.now += seconds

    CLOCK = Clock()

    @pytest.hookimpl(trylast=True)
    def pytest_configure(config):
        config.stash[SESSION].clock = CLOCK

    @pytest.fixture
    def clock():
        return CLOCK
"""


@pytest.fixture(autouse=True)
def in_order(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let inner runs keep the order of their tests; one test asks for a random one."""
    assert pytester.path.is_dir()  # making it clears the variable, so it comes first
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -o asyncio_default_fixture_loop_scope=function")


@pytest.fixture
def clocked(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose time is spent by its workloads alone."""
    pytester.makeconftest(CLOCK)
    return pytester
