"""The sheet's hand value, lengths that do not matter, and widths that differ."""

import pytest
import torch

import pairs
import tiny
from compressor.methods.objectives import cosine

STUDENT = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [5.0, 5.0]]])
TEACHER = torch.tensor([[[4.0, 3.0], [0.0, 1.0], [-5.0, -5.0]]])
MASK = torch.tensor([[1, 1, 0]])


def objective(student, teacher, **options):
    return cosine.Objective(cosine.Options(**options), pairs.context(student, teacher))


def test_hand_value_leaves_padding_out():
    assert cosine.cosine_loss(STUDENT, TEACHER, MASK).item() == pytest.approx(0.52, abs=1e-6)


def test_lengths_do_not_matter_and_opposites_cost_two():
    longer = cosine.cosine_loss(7 * STUDENT, TEACHER, MASK)
    assert longer.item() == pytest.approx(0.52, abs=1e-6)
    assert cosine.cosine_loss(STUDENT, -3 * STUDENT, MASK).item() == pytest.approx(2, abs=1e-6)


def test_gradient_of_a_zero_state_is_finite():
    states = torch.zeros(1, 3, 2, requires_grad=True)
    cosine.cosine_loss(states, TEACHER, MASK).backward()
    assert states.grad.isfinite().all()


def test_a_student_equal_to_its_teacher_has_no_loss():
    model, rows = tiny.model(), pairs.batch()
    seen = pairs.headless(pairs.views(model, rows))
    loss = objective(model, model).loss(rows, seen, pairs.detached(seen))
    assert loss.total.item() == pytest.approx(0, abs=1e-6)


def test_other_width_padding_weight_and_gradients():
    student, teacher = tiny.model(), tiny.model(hidden_size=48, seed=1)
    rows = pairs.batch()
    seen = pairs.headless(pairs.views(student, rows))
    shown = pairs.detached(pairs.views(teacher, rows))
    made = objective(student, teacher, cosine_weight=3.0)
    pairs.assert_ignores_padding(lambda: made, seen, shown, rows)
    loss = made.loss(rows, seen, shown)
    assert loss.total.item() == pytest.approx(3 * loss.parts["cosine"].item())
    pairs.assert_finite_gradients(loss, student, made.module)
    assert made.module.weight.grad.abs().max() > 0
