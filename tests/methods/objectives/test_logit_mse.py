"""The sheet's hand value for classes, one output, and tokens."""

import pytest
import torch

import pairs
import tiny
from compressor.methods.contract import Context
from compressor.methods.objectives import logit_mse, soft_labels, task
from compressor.model.views import Views

TEACHER = torch.tensor([[2.0, 0.0, -2.0], [1.0, 1.0, 0.0]])
STUDENT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
MASK = torch.ones(2, 4)


def objective(task="text-classification", **options):
    return logit_mse.Objective(logit_mse.Options(**options), Context(None, task))


def rows(labels):
    return {"attention_mask": MASK, "labels": torch.tensor(labels)}


def test_hand_value():
    assert logit_mse.logit_distance(STUDENT, TEACHER).item() == pytest.approx(1.166667, abs=1e-6)


def test_parts_are_unweighted_and_mixed():
    loss = objective(hard_weight=0.25).loss(rows([0, 1]), Views(STUDENT), Views(TEACHER))
    hard = task.task_loss("text-classification", STUDENT, torch.tensor([0, 1])).item()
    assert loss.parts["logit_mse"].item() == pytest.approx(1.166667, abs=1e-6)
    assert loss.total.item() == pytest.approx(0.75 * 1.166667 + 0.25 * hard, abs=1e-6)


def test_regression_mixes_the_teachers_scores_with_the_gold_ones():
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    made = objective("regression", hard_weight=0.1)
    loss = made.loss(rows([2.0, 3.0]), Views(student), Views(teacher))
    # 0.9 (1 + 4) / 2 + 0.1 (1 + 0) / 2
    assert loss.total.item() == pytest.approx(2.3)
    soft = soft_labels.Objective(
        soft_labels.Options(hard_weight=0.1), Context(None, "regression")
    ).loss(rows([2.0, 3.0]), Views(student), Views(teacher))
    assert loss.total.item() == pytest.approx(soft.total.item())


def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient():
    student = STUDENT.clone().requires_grad_()
    loss = objective(hard_weight=0.0).loss(rows([0, 1]), Views(student), Views(STUDENT))
    loss.total.backward()
    assert loss.total.item() == 0
    assert student.grad.abs().max() == 0


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
