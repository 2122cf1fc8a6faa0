"""The task losses on numbers that can be checked by hand."""

import math

import pytest
import torch

from compressor.methods.objectives.task import task_loss


def test_classes():
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    loss = task_loss("text-classification", logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_scores():
    loss = task_loss("regression", torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0]))
    assert loss.item() == pytest.approx(2.5)


def test_masked_tokens_only():
    logits = torch.zeros(1, 3, 4)
    logits[0, 0] = 100.0 * torch.eye(4)[2]  # would cost 100 if it were counted
    loss = task_loss("masked-lm", logits, torch.tensor([[-100, 1, -100]]))
    assert loss.item() == pytest.approx(math.log(4))


def test_next_token_is_predicted_from_the_one_before():
    logits = torch.full((1, 3, 4), -50.0)
    logits[0, 0, 3], logits[0, 1, 1] = 50.0, 50.0  # after position 0 comes 3, after 1 comes 1
    loss = task_loss("causal-lm", logits, torch.tensor([[2, 3, 1]]))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("task", ["masked-lm", "causal-lm"])
def test_nothing_to_predict_costs_nothing(task):
    logits = torch.ones(1, 3, 4, requires_grad=True)
    labels = torch.tensor([[1, -100, -100]] if task == "causal-lm" else [[-100] * 3])
    loss = task_loss(task, logits, labels)
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("task", "labels"),
    [("text-classification", [1, -100, 0]), ("regression", [1.0, float("nan"), 0.0])],
)
def test_rows_without_a_label_are_passed_over(task, labels):
    logits, labels = torch.randn(3, 1 if task == "regression" else 2), torch.tensor(labels)
    known = task_loss(task, logits[::2], labels[::2])
    torch.testing.assert_close(task_loss(task, logits, labels), known)
    assert task_loss(task, logits, labels[[1, 1, 1]]) == 0
