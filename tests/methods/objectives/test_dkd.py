"""The sheet's parts, their sum to plain distillation, and tasks without a second part."""

import pytest
import torch

import pairs
import tiny
from compressor.cli import run
from compressor.errors import UsageError
from compressor.methods.objectives import dkd, soft_labels, task
from compressor.model.views import Views

TEACHER = torch.tensor([[2.0, 0.0, -2.0], [1.0, 1.0, 0.0]])
STUDENT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
LABELS = torch.tensor([0, 1])
THREE = ("bad", "fine", "good")
ROWS = {"labels": LABELS}


def objective(labels=THREE, task="text-classification", **options):
    model = tiny.model(labels=labels)
    facts = pairs.context(model, model, task, total_steps=100, steps_per_epoch=10)
    return dkd.Objective(dkd.Options(**options), facts)


def test_hand_values():
    target, others = dkd.decoupled(STUDENT, TEACHER, LABELS, 1.0)
    assert target.tolist() == pytest.approx([0.199914, 0.313460], abs=1e-6)
    assert others.tolist() == pytest.approx([0.327813, 0.110944], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_plain_distillation_is_the_first_part_and_a_share_of_the_second(temperature):
    target, others = dkd.decoupled(STUDENT, TEACHER, LABELS, temperature)
    sure = (TEACHER / temperature).softmax(-1)[torch.arange(2), LABELS]
    if temperature == 1:
        assert sure.tolist() == pytest.approx([0.866813, 0.422319], abs=1e-6)
        assert (target + (1 - sure) * others).tolist() == pytest.approx(
            [0.243574, 0.377550], abs=1e-6
        )
    plain = soft_labels.soft_label_loss(STUDENT, TEACHER, temperature)
    torch.testing.assert_close((target + (1 - sure) * others).mean(), plain, rtol=1e-5, atol=1e-6)


def test_two_classes_have_no_second_part():
    others = dkd.decoupled(STUDENT[:, :2], TEACHER[:, :2], LABELS, 4.0)[1]
    assert others.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("size", [30.0, 3000.0])
def test_sure_and_half_precision_logits_stay_finite(size):
    sure = (torch.eye(3)[:2] * size).half().requires_grad_()
    parts = dkd.decoupled(sure, -sure.detach(), LABELS, 1.0)
    sum(part.mean() for part in parts).backward()
    assert all(part.isfinite().all() for part in parts)
    assert sure.grad.isfinite().all()


def test_warm_up_is_the_authors_by_epochs_and_rises_step_by_step():
    assert [dkd.warm_up(epoch, 20) for epoch in (0, 1, 10, 20, 240)] == [0, 0.05, 0.5, 1, 1]
    assert dkd.warm_up(0, 0) == 1
    made = objective(dkd_warmup=2.0)
    shares = []
    for step in (0, 5, 10, 20, 99):
        made.before_step(step)
        shares.append(made.share)
    assert shares == [0, 0.25, 0.5, 1, 1]


def test_first_step_is_plain_training_and_parts_add_up_later():
    made = objective(dkd_temperature=1.0, target_weight=2.0, other_weight=3.0)
    hard = task.task_loss("text-classification", STUDENT, LABELS).item()
    seen, shown = Views(STUDENT), Views(TEACHER)
    assert made.loss(ROWS, seen, shown).total.item() == pytest.approx(hard)
    made.before_step(50)
    loss = made.loss(ROWS, seen, shown)
    expected = hard + 2 * (0.199914 + 0.313460) / 2 + 3 * (0.327813 + 0.110944) / 2
    assert loss.total.item() == pytest.approx(expected, abs=1e-5)
    assert loss.parts["tckd"].item() == pytest.approx((0.199914 + 0.313460) / 2, abs=1e-6)


def test_a_student_equal_to_its_teacher_has_only_the_labels_loss():
    made = objective(dkd_warmup=0.0)
    loss = made.loss(ROWS, Views(STUDENT), Views(STUDENT.clone()))
    assert loss.total.item() == pytest.approx(loss.parts["hard"].item(), abs=1e-6)


def test_two_classes_and_regression_are_refused(workshop, tmp_path, capsys):
    with pytest.raises(UsageError, match="needs 3 classes or more, and this task has 2"):
        objective(labels=("bad", "good"))
    with pytest.raises(UsageError, match="regression has no classes"):
        objective(labels=("score",), task="regression")
    words = f"distill {workshop}/teacher --method dkd --data {workshop}/data -o {tmp_path}/out"
    assert run(words.split()) == 2
    assert "always zero" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
