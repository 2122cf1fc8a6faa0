"""Two stages, the same bytes as continuation without a margin, and one output."""

import json

import pytest
import torch

import pairs
import tiny
from compressor.cli import run
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.objectives import annealing_kd, task
from compressor.model.views import Views

STUDENT, TEACHER = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, -2.0]])


def objective(task="text-classification", **options):
    facts = Context(None, task, total_steps=300, steps_per_epoch=10)
    return annealing_kd.Objective(annealing_kd.Options(**options), facts)


def rows(labels):
    return {"attention_mask": torch.ones(len(labels), 4), "labels": torch.tensor(labels)}


def test_stage_one_is_the_distance_to_the_scaled_teacher_and_stage_two_the_labels():
    made = objective()
    hard = task.task_loss("text-classification", STUDENT, torch.tensor([0])).item()
    found = {}
    for phase in (1, 2, 10, 18, 20, 21, 30):
        made.before_step((phase - 1) * 10)
        loss = made.loss(rows([0]), Views(STUDENT), Views(TEACHER))
        found[phase] = loss.total.item()
    # phi 0.1, 0.2, 0.6, 1 and 1 in stage one: 2 (1 - 2 phi)^2
    expected = {1: 1.28, 2: 0.72, 10: 0.08, 18: 2.0, 20: 2.0, 21: hard, 30: hard}
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_scale_reaches_one_within_stage_one():
    made = objective(phases=9, stage_one=6, t_max=3)
    scales = []
    for step in range(0, 300, 10):
        made.before_step(step)
        if not made.learns_labels:
            scales.append(made.phi)
    assert scales == sorted(scales)
    assert scales[-1] == 1
    assert len(scales) == 20


def test_a_student_equal_to_its_teacher_has_no_loss_at_full_scale():
    made = objective(t_max=1)
    loss = made.loss(rows([0]), Views(STUDENT), Views(STUDENT.clone()))
    assert loss.total.item() == 0


def test_regression_in_both_stages():
    made = objective("regression", t_max=2)
    seen, shown = Views(torch.tensor([[1.0]])), Views(torch.tensor([[4.0]]))
    assert made.loss(rows([3.0]), seen, shown).total.item() == pytest.approx(1.0)  # (1 - 2)^2
    made.before_step(299)
    assert made.loss(rows([3.0]), seen, shown).total.item() == pytest.approx(4.0)


def test_padded_tokens_do_not_count_and_gradients_are_finite():
    student, teacher = (
        tiny.model(head="AutoModelForMaskedLM", labels=None, seed=seed) for seed in (0, 1)
    )
    batch = pairs.batch()
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    seen, shown = pairs.views(student, batch), pairs.detached(pairs.views(teacher, batch))
    made = objective("masked-lm")
    pairs.assert_ignores_padding(lambda: made, seen, shown, batch)
    pairs.assert_finite_gradients(made.loss(batch, seen, shown), student)


def test_a_stage_longer_than_the_run_is_refused():
    with pytest.raises(UsageError, match="--stage-one 8 is more than --phases 6"):
        objective(phases=6, stage_one=8)


def test_continuation_without_a_margin_and_with_a_step_is_the_same_bit_for_bit(workshop, tmp_path):
    words = f"distill {workshop}/teacher --data {workshop}/data --epochs 2 --batch-size 16"
    words += " --lr 2e-3 --keep last --eval-steps 4 --t-max 4 --phases 6"
    step = "--psi-rate 0 --psi-until 4"
    runs = {
        "annealing": "--method annealing_kd --stage-one 4",
        "continuation": f"--method continuation_kd --hinge-margin 0 {step}",
        "forgiving": f"--method continuation_kd --hinge-margin 1 {step}",
    }
    weights, losses = {}, {}
    for name, flags in runs.items():
        assert run([*words.split(), *flags.split(), "-o", str(tmp_path / name)]) == 0
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
        curve = json.loads((tmp_path / name / "run.json").read_text())["curve"]
        losses[name] = [point["loss"] for point in curve if "loss" in point]
    assert losses["annealing"] == losses["continuation"]
    assert weights["annealing"] == weights["continuation"]
    assert weights["annealing"] != weights["forgiving"]
