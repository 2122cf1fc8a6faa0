"""ALRS: the table of the paper's sheet, the warm-up, the early end, and a resumed run."""

import json

import pytest
import torch

from compressor.cli import run
from compressor.methods.contract import Context
from compressor.methods.modifiers import alrs

LOSSES = [1.0, 0.5, 0.495, 0.60]


def modifier(steps_per_epoch=1, warmup=0, **options):
    context = Context(
        torch.nn.Linear(1, 1),
        "text-classification",
        total_steps=100,
        steps_per_epoch=steps_per_epoch,
        learning_rate=0.1,
        warmup_steps=warmup,
    )
    return alrs.Modifier(alrs.Options(**options), context)


def rates(made, losses):
    found = []
    for step, loss in enumerate(losses):
        made.learnt(step, loss)
        found.append(made.learning_rate(step + 1, 0.0))
    return found


@pytest.mark.parametrize(
    ("guard", "expected"),
    [("plateau", [0.1, 0.1, 0.09, 0.09]), ("rise", [0.1, 0.1, 0.09, 0.081])],
)
def test_the_rate_after_each_period(guard, expected):
    assert rates(modifier(alrs_guard=guard), LOSSES) == pytest.approx(expected)


def test_a_period_is_judged_by_its_mean():
    made = modifier(steps_per_epoch=2)
    noisy = [loss + noise for loss in LOSSES for noise in (0.3, -0.3)]
    assert rates(made, noisy)[1::2] == pytest.approx([0.1, 0.1, 0.09, 0.09])
    halves = modifier(steps_per_epoch=4, alrs_period=0.5)
    assert rates(halves, noisy)[1::2] == pytest.approx([0.1, 0.1, 0.09, 0.09])


def test_the_slope_counts_as_a_share_of_the_loss():
    # A fall of 0.01 is progress where it is a tenth of the loss.
    assert rates(modifier(), [0.11, 0.10])[-1] == pytest.approx(0.1)
    assert rates(modifier(), [1.11, 1.10])[-1] == pytest.approx(0.09)


def test_the_warm_up_is_left_alone():
    made = modifier(warmup=3)
    assert [made.learning_rate(step, 0.01 * step) for step in (0, 2, 3)] == [0.0, 0.02, 0.1]


def test_a_loss_that_stands_still_while_the_rate_rises_says_nothing():
    # Progress is judged from the first period behind the warm-up on: step 3 against step 4.
    assert rates(modifier(warmup=3), [0.7] * 5)[2:] == pytest.approx([0.1, 0.1, 0.09])


def test_a_resumed_run_goes_on_where_it_was():
    whole = modifier(steps_per_epoch=2)
    losses = [loss for loss in LOSSES for _ in range(2)]
    expected = rates(whole, losses)
    first, second = modifier(steps_per_epoch=2), modifier(steps_per_epoch=2)
    before = rates(first, losses[:5])
    second.load_state_dict(first.state_dict())
    assert before + rates(second, losses[5:]) == expected


# No loss falls by 100, so every period of a tenth of an epoch halves the rate.
FALLING = (
    "--epochs 5 --batch-size 16 --warmup 0 --with alrs --alrs-period 0.1 --alrs-threshold 100 "
    "--alrs-slope 100 --alrs-decay 0.5 --alrs-floor 0.2"
)


def test_training_ends_when_the_rate_is_at_its_floor(workshop, tmp_path):
    words = f"finetune {workshop}/base --data {workshop}/data -o {tmp_path}/out {FALLING}"
    assert run(words.split()) == 0
    step = json.loads((tmp_path / "out/compression.json").read_text())["steps"][-1]
    assert step["metrics"]["alrs_last_rate"] == pytest.approx(5e-5 / 8)
    facts = json.loads((tmp_path / "out/run.json").read_text())
    # 20 steps an epoch: periods of 2, the first has nothing to compare with, then three halvings.
    assert facts["steps"] == 8
    assert facts["best_step"] <= 8


def test_it_does_not_end_before_a_ramp_of_zeros_has(workshop, tmp_path):
    words = f"prune {workshop}/base --method gmp --data {workshop}/data -o {tmp_path}/out {FALLING}"
    assert run([*words.split(), "--prune-end", "0.3"]) == 0
    # Of 100 steps the first 30 prune, and those at step 30 are the first with all zeros.
    assert json.loads((tmp_path / "out/run.json").read_text())["steps"] == 31
