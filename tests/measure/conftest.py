"""Reports of invented measurements, and what makes them."""

from __future__ import annotations

import pytest

from compressor.measure.gates import Gates, check
from compressor.measure.html import render_html
from measure.invented import (
    MACHINE,
    accuracy,
    four_models,
    four_reported,
    latency,
    layers,
    measured,
    size,
    step,
    training,
)


@pytest.fixture
def machine() -> dict:
    return {**MACHINE}


@pytest.fixture
def models() -> list[dict]:
    return four_models()


@pytest.fixture
def report() -> dict:
    return four_reported()


@pytest.fixture(scope="session")
def rendered() -> tuple[dict, str]:
    """A report with two judgements and its page: drawn once, so tests only read them."""
    report = four_reported()
    report["gates"] = check(report, Gates(max_drop=3), ["student", "student-int8"])
    return report, render_html(report)


@pytest.fixture
def make():
    """The builders above, for tests that need other numbers."""

    class Make:
        measured = staticmethod(measured)
        accuracy = staticmethod(accuracy)
        latency = staticmethod(latency)
        size = staticmethod(size)
        layers = staticmethod(layers)
        training = staticmethod(training)
        step = staticmethod(step)

    return Make
