"""Hand values of the distillation sheet, and the cases to which the loss reduces."""

import pytest
import torch

import tiny
from compressor.methods.contract import Context
from compressor.methods.objectives import soft_labels, task
from compressor.model.inputs import fed
from compressor.model.views import Views

TEACHER = torch.tensor([[2.0, 0.0, -2.0], [1.0, 1.0, 0.0]])
STUDENT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, 0.310562), (2.0, 0.445571), (100.0, 0.555015)]
)
def test_hand_values(temperature, expected):
    loss = soft_labels.soft_label_loss(STUDENT, TEACHER, temperature)
    # T^2 magnifies the rounding of a divergence that itself shrinks with T^2.
    assert loss.item() == pytest.approx(expected, abs=2e-6 * max(1, temperature**2 / 20))


def test_high_temperature_tends_to_the_squared_distance_of_centred_logits():
    centred = (STUDENT - TEACHER) - (STUDENT - TEACHER).mean(-1, keepdim=True)
    limit = centred.square().sum(-1).mean() / (2 * 3)
    assert limit.item() == pytest.approx(0.555556, abs=1e-6)
    loss = soft_labels.soft_label_loss(STUDENT, TEACHER, 50.0)
    assert loss.item() == pytest.approx(limit.item(), rel=3e-3)


def test_one_output_is_the_squared_distance():
    loss = soft_labels.soft_label_loss(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), 4.0)
    assert loss.item() == pytest.approx(5.0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_chunks_give_the_loss_and_gradient_of_the_whole(kind):
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(75, 11, generator=draw).to(kind) for _ in range(2))
    given, whole = student.clone().requires_grad_(), student.clone().requires_grad_()
    loss = soft_labels.soft_label_loss(given, teacher, 3.0)
    learnt, taught = ((z.float() / 3.0).log_softmax(-1) for z in (whole, teacher))
    wanted = 9.0 * (taught.exp() * (taught - learnt)).sum(-1).mean()
    torch.testing.assert_close(loss, wanted)
    (2 * loss).backward()
    (2 * wanted).backward()
    assert given.grad.dtype == kind
    exact = {"atol": 1e-7, "rtol": 1e-5} if kind == torch.float32 else {"atol": 1e-5, "rtol": 0.01}
    torch.testing.assert_close(given.grad, whole.grad, **exact)
    with torch.no_grad():
        assert soft_labels.soft_label_loss(given, teacher, 3.0) == loss


def test_padding_of_a_language_model_counts_for_nothing():
    draw = torch.Generator().manual_seed(0)
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    student, teacher = (torch.randn(2, 5, 7, generator=draw) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    labels = torch.tensor([[-100, 3, -100, -100, 6], [2, -100, -100, -100, -100]])
    batch = {"attention_mask": mask, "labels": labels}
    found = objective(model, "masked-lm", hard_weight=0.5).loss(
        batch, Views(student), Views(teacher)
    )
    real = torch.cat([student[0], student[1, :2]]), torch.cat([teacher[0], teacher[1, :2]])
    torch.testing.assert_close(found.parts["soft"], soft_labels.soft_label_loss(*real, 2.0))
    hard = torch.nn.functional.cross_entropy(student.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(found.parts["hard"], hard)


def batch_and_views():
    model = tiny.model()
    tokens = tiny.tokenizer()(["great film", "awful dull plot"], padding=True, return_tensors="pt")
    batch = {**tokens, "labels": torch.tensor([1, 0])}
    return model, batch, Views(model(**fed(model, batch)).logits)


def objective(model, task="text-classification", **options):
    return soft_labels.Objective(soft_labels.Options(**options), Context(model, task))


def test_a_student_equal_to_its_teacher_has_no_soft_loss_and_no_gradient():
    model, batch, student = batch_and_views()
    teacher = Views(student.logits.detach())
    loss = objective(model, hard_weight=0.0).loss(batch, student, teacher)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(0.0, abs=1e-6)
    assert max(p.grad.abs().max() for p in model.parameters() if p.grad is not None) < 1e-6


def test_hard_weight_one_is_plain_training_and_asks_no_teacher():
    model, batch, student = batch_and_views()
    hard = objective(model, hard_weight=1.0)
    assert not hard.teacher_shows
    plain = task.Objective(task.Options(), Context(model, "text-classification"))
    losses = [one.loss(batch, student, Views()).total.item() for one in (hard, plain)]
    assert losses[0] == losses[1]


def test_parts_are_unweighted_and_add_up():
    model, batch, student = batch_and_views()
    loss = objective(model, hard_weight=0.25).loss(batch, student, Views(torch.eye(2) * 3))
    total = 0.75 * loss.parts["soft"] + 0.25 * loss.parts["hard"]
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-6)


def test_padding_of_token_losses_does_not_count():
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    ids = tiny.tokenizer()(["great film", "a very long awful dull plot"], padding=True)
    batch = {name: torch.tensor(ids[name]) for name in ("input_ids", "attention_mask")}
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    student = Views(model(**fed(model, batch)).logits)
    answers = torch.randn(student.logits.shape, generator=torch.Generator().manual_seed(1))
    other = answers.clone()
    other[batch["attention_mask"] == 0] = 99.0
    losses = [
        objective(model, "masked-lm").loss(batch, student, Views(a)).total.item()
        for a in (answers, other)
    ]
    assert losses[0] == losses[1]
