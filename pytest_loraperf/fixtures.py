"""The fixtures: one pipeline for each strategy, what they are built from, and workloads of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import pytest

from pytest_loraperf.errors import AdapterError, LoraperfError, ModelError
from pytest_loraperf.session import Session, TestRecord
from pytest_loraperf.strategies import NO_LORA, REFERENCE, SHIPPED, Strategy

if TYPE_CHECKING:
    from pytest_loraperf.backends.protocol import Generation
    from pytest_loraperf.bench.bench import Bench
    from pytest_loraperf.request import Request
    from pytest_loraperf.run.race import Race
    from pytest_loraperf.specs import Gates

SESSION = pytest.StashKey[Session]()
RECORD = pytest.StashKey[TestRecord]()
FORECAST_MADE = "loraperf: a forecast has no output to go on with"
GATES: pytest.StashKey[Gates] = pytest.StashKey()
Adapters = str | Path | Sequence[str | Path]


@contextmanager
def one_clear_line() -> Iterator[None]:
    """Fail the test with the message alone: the traceback of a wrong setting leads nowhere."""
    try:
        yield
    except LoraperfError as error:
        # Without `from None` pytest would show the error that this one is made from as well.
        raise pytest.fail.Exception(f"loraperf: {error}", pytrace=False) from None


class LoraPipeline:
    """A strategy's pipeline. Calling it runs one generation, which the test's gates replay."""

    def __init__(self, bench: Bench, strategy: Strategy, default: Request, record: TestRecord) -> None:
        self.strategy = strategy
        self._bench = bench
        self._default = default
        self._record = record

    @property
    def pipeline(self) -> Any:
        """The library's own pipeline object, such as DiffSynth's ``QwenImagePipeline``."""
        return self._bench.arm(self.strategy.name).pipeline

    def __call__(self, prompt: str | None = None, **changes: Any) -> Generation:
        """Run one generation.

        The arguments are the fields of a ``Request``: ``prompt``, ``height``, ``width``, ``steps``, ``cfg``,
        ``seed``, ``negative_prompt``, ``edit_image``, ``extra``; what is not given comes from ``lora_request``.

        Returns:
            Latents as float32 in host memory, in the pipeline's shape, and the image where there is a VAE.
        """
        with one_clear_line():
            request = self._default.with_changes(**({} if prompt is None else {"prompt": prompt}), **changes)
            generation = self._bench.generate(self.strategy.name, request)
        self._record.requests.append(request)
        return generation


class Given(NamedTuple):
    """What a pipeline is built from and called with, as the fixtures of the user's repository say it."""

    model: object
    adapters: tuple[str | Path, ...]
    request: Request


def _files(adapters: object) -> tuple[str | Path, ...]:
    if isinstance(adapters, str | Path):
        return (adapters,)
    if isinstance(adapters, list | tuple) and all(isinstance(each, str | Path) for each in adapters):
        return tuple(adapters)
    raise AdapterError(
        f"the fixture lora_adapter returned {adapters!r}; return the path of a safetensors file, such as "
        '"a.safetensors:0.8", or a list of them, which is empty for a synthetic one'
    )


@pytest.fixture(scope="session")
def lora_model(pytestconfig: pytest.Config) -> object:
    """Say what is built; override it to return a model's name, or a function ``build(device=…)``."""
    return pytestconfig.stash[SESSION].settings.model


@pytest.fixture(scope="session")
def lora_adapter(pytestconfig: pytest.Config) -> Adapters:
    """Name the adapter file or files, ``a.safetensors:0.8`` with a scale; none is a synthetic one, rank 64."""
    return pytestconfig.stash[SESSION].settings.adapters


@pytest.fixture
def lora_request(pytestconfig: pytest.Config, lora_model: object) -> Request:
    """Say what is generated unless a test says otherwise; override it to return a ``Request``.

    It is 1024×1024 with ``synthetic:full`` and, where there is a GPU, with a model of your own; else it is 64×64.
    """
    with one_clear_line():
        return pytestconfig.stash[SESSION].request(lora_model)


@pytest.fixture
def _lora_given(lora_model: object, lora_adapter: object, lora_request: object) -> Given:
    """Take what the fixtures that a repository may override returned, and refuse what they cannot mean.

    The pipelines name this fixture, and it those, so that pytest knows of those that have ``params``.
    """
    from pytest_loraperf.request import Request  # noqa: PLC0415 - start-up

    with one_clear_line():
        if lora_model is None:  # as a forgotten return does; the tests would run, on another model
            raise ModelError("the fixture lora_model returned None; return a model's name or a build function")
        adapters = _files(lora_adapter)
        if not isinstance(lora_request, Request):
            raise LoraperfError(
                f"the fixture lora_request returned {lora_request!r}; return a pytest_loraperf.Request, "
                "such as Request(steps=8)"
            )
    return Given(lora_model, adapters, lora_request)


class ForecastPipeline:
    """Stands for a strategy's pipeline in a forecast. Calling it ends the test: there is no output to look at."""

    def __init__(self, session: Session, record: TestRecord, given: Given) -> None:
        self._session = session
        self._record = record
        self._model, self._adapters, self._default = given

    @property
    def pipeline(self) -> Any:
        """There is none: the forecast is made of the default request, and the test ends."""
        return self()

    def __call__(self, prompt: str | None = None, **changes: Any) -> NoReturn:
        """Forecast one generation, of the arguments that a pipeline takes, and end the test."""
        with one_clear_line():
            self.forecast(self._default.with_changes(**({} if prompt is None else {"prompt": prompt}), **changes))
        pytest.skip(FORECAST_MADE)

    def forecast(self, request: Request | None = None) -> None:
        """Forecast one generation."""
        session, record = self._session, self._record
        model = session.model(self._model)
        made = request or self._default
        record.requests.append(made)
        record.forecast = session.forecast(str(record.strategy), model, self._adapters, made)


def _open_pipeline(request: pytest.FixtureRequest, name: str, given: Given) -> LoraPipeline | ForecastPipeline:
    session: Session = request.config.stash[SESSION]
    record = request.node.stash[RECORD]
    with one_clear_line():
        strategy = session.strategies.find(name)
        record.strategy = strategy.name
        if session.settings.forecast:
            pipeline = ForecastPipeline(session, record, given)
            record.foresee = pipeline.forecast
            return pipeline
        record.bench = session.bench(given.model, given.adapters)
        record.bench.arm(strategy.name)
    return LoraPipeline(record.bench, strategy, given.request, record)


@pytest.fixture
def lora_pipeline(request: pytest.FixtureRequest, _lora_given: Given) -> LoraPipeline | ForecastPipeline:
    """Build the pipeline of the strategy that the marker ``lora_strategy`` names, once for each name."""
    return _open_pipeline(request, getattr(request, "param", REFERENCE), _lora_given)


def _strategy_fixture(name: str) -> Callable[..., LoraPipeline | ForecastPipeline]:
    def build(request: pytest.FixtureRequest, _lora_given: Given) -> LoraPipeline | ForecastPipeline:
        return _open_pipeline(request, name, _lora_given)

    build.__doc__ = f"Build the pipeline of the strategy {name}."
    return pytest.fixture(name=f"{name}_pipeline")(build)


for _strategy in (*SHIPPED, NO_LORA):
    globals()[f"{_strategy.name}_pipeline"] = _strategy_fixture(_strategy.name)


class RegisterWorkload(Protocol):
    """What the fixture ``gpu_workload`` is."""

    def __call__(self, function: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Call the function once and return what it returns."""


@pytest.fixture
def gpu_workload(request: pytest.FixtureRequest) -> RegisterWorkload:
    """Register any callable: it is called once now, and replayed by the markers of the test.

    The first registered is the one that the gates are about, in a test that calls no pipeline. Others are
    references, by their name; one that no gate on time names is an error.
    """
    session, record = request.config.stash[SESSION], request.node.stash[RECORD]
    if session.settings.forecast:
        pytest.skip("loraperf: gpu_workload takes any callable, and only pipelines are forecast")

    def register(function: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        from pytest_loraperf.bench.workloads import (  # noqa: PLC0415 - imports torch
            CallableWorkload,
            check_callable,
            check_has_run,
        )

        with one_clear_line():
            check_callable("gpu_workload(function, *args, name=…)", function)
        label = name or str(getattr(function, "__name__", type(function).__name__))
        if label in record.workloads:
            pytest.fail(
                f"loraperf: a workload named {label!r} is registered already; give it name=", pytrace=False
            )
        with one_clear_line():
            lock = session.lock
        with lock.held():  # another process may be measuring
            result = function(*args, **kwargs)
        with one_clear_line():
            check_has_run(label, result)
        record.workloads[label] = CallableWorkload(label, lambda: function(*args, **kwargs), has_run=True)
        return result

    return register


class RunRace(Protocol):
    """What the fixture ``lora_race`` is."""

    def __call__(self, *strategies: str, rounds: int | None = None, **callables: Callable[[], object]) -> Race:
        """Take interleaved rounds of all arms."""


@pytest.fixture
def lora_race(request: pytest.FixtureRequest, _lora_given: Given) -> RunRace:
    """Compare arms in the body of a test: strategies by name, callables by keyword."""
    if request.config.stash[SESSION].settings.forecast:
        pytest.skip("loraperf: lora_race compares times, and a forecast has none")

    def race(*strategies: str, rounds: int | None = None, **callables: Callable[[], object]) -> Race:
        __tracebackhide__ = True
        from pytest_loraperf.run.race import run_race  # noqa: PLC0415 - imports torch

        session: Session = request.config.stash[SESSION]
        with one_clear_line():
            bench = session.bench(_lora_given.model, _lora_given.adapters) if strategies else None
            default = _lora_given.request if strategies else None
            return run_race(session, request.node.stash[RECORD], bench, strategies, default, callables, rounds)

    return race
