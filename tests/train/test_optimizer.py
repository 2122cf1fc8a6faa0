"""Learning rates at hand-checked steps, and what decays."""

from dataclasses import replace

import pytest

import tiny
from compressor.cli import run
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
    found = planned_learning_rate(step, 100, options, steps_per_epoch=10)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1e-4), (199, 1e-6), (200, 1e-4), (399, 1e-6), (999, 1e-6)]
)
def test_linear_decay_that_recurs(step, expected):
    options = TrainingOptions(learning_rate=1e-4, warmup=0, cycle_epochs=2, final_lr=0.01)
    found = planned_learning_rate(step, 1000, options, steps_per_epoch=100)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("flag", ["--cycle-epochs 2", "--final-lr 0.1"])
def test_a_constant_rate_has_no_cycles(capsys, flag):
    assert run(f"finetune model --data data --schedule constant {flag}".split()) == 2
    assert "--schedule constant" in capsys.readouterr().err


def test_cycles_begin_after_the_warm_up():
    options = replace(OPTIONS, schedule="cosine", cycle_epochs=1.5)
    rates = [planned_learning_rate(step, 40, options, steps_per_epoch=4) for step in range(4, 16)]
    assert rates[:6] == rates[6:] == pytest.approx([1, 0.933, 0.75, 0.5, 0.25, 0.067], abs=1e-3)


def test_without_warm_up_the_first_step_has_the_peak():
    options = replace(OPTIONS, warmup=0.0)
    assert planned_learning_rate(0, 10, options, steps_per_epoch=5) == 1.0


def test_only_matrices_decay():
    model = tiny.model()
    decayed, plain = build_optimizer([model], OPTIONS).param_groups
    assert decayed["weight_decay"] == 0.01
    assert plain["weight_decay"] == 0.0
    assert all(parameter.dim() >= 2 for parameter in decayed["params"])
    assert all(parameter.dim() < 2 for parameter in plain["params"])
    count = sum(p.numel() for group in (decayed, plain) for p in group["params"])
    assert count == sum(p.numel() for p in model.parameters())
