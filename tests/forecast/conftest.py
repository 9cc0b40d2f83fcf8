from __future__ import annotations

import pytest

# The inner runs of pytester share this process, and torch and torchao can be imported only once in it.
import pytest_loraperf.backends.diffsynth
import pytest_loraperf.backends.quantization
import pytest_loraperf.hooks.outcome
import pytest_loraperf.run.forecast_judging
import pytest_loraperf.run.gathering
import pytest_loraperf.run.judging
from pytest_loraperf.forecast.card import H100
from pytest_loraperf.forecast.meter import ForecastMeter


@pytest.fixture(scope="session", autouse=True)
def torchao_imported() -> None:
    pytest_loraperf.backends.quantization.why_no_torchao()


@pytest.fixture
def meter() -> ForecastMeter:
    return ForecastMeter(H100)
