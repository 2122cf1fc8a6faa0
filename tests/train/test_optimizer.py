"""Learning rates at hand-checked steps, and what decays."""

from dataclasses import replace

import pytest

import tiny
from compressor.train.optimizer import build_optimizer, planned_learning_rate
from compressor.train.options import TrainingOptions

OPTIONS = TrainingOptions(learning_rate=1.0, warmup=0.1)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("linear", 0, 1 / 11),
        ("linear", 9, 10 / 11),
        ("linear", 10, 1.0),
        ("linear", 55, 0.5),
        ("linear", 99, 1 / 90),
        ("cosine", 10, 1.0),
        ("cosine", 55, 0.5),
        ("cosine", 40, 0.75),
        ("constant", 5, 6 / 11),
        ("constant", 99, 1.0),
    ],
)
def test_schedules_over_a_hundred_steps(schedule, step, expected):
    options = replace(OPTIONS, schedule=schedule)
    assert planned_learning_rate(step, 100, options) == pytest.approx(expected)


def test_without_warm_up_the_first_step_has_the_peak():
    assert planned_learning_rate(0, 10, replace(OPTIONS, warmup=0.0)) == 1.0


def test_only_matrices_decay():
    model = tiny.model()
    decayed, plain = build_optimizer([model], OPTIONS).param_groups
    assert decayed["weight_decay"] == 0.01
    assert plain["weight_decay"] == 0.0
    assert all(parameter.dim() >= 2 for parameter in decayed["params"])
    assert all(parameter.dim() < 2 for parameter in plain["params"])
    count = sum(p.numel() for group in (decayed, plain) for p in group["params"])
    assert count == sum(p.numel() for p in model.parameters())
