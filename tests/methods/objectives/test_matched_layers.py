"""Teacher layers find their student layers: hand values, spread, and the identity at the start."""

import pytest
import torch

import pairs
import tiny
from compressor.errors import UsageError
from compressor.methods.objectives import matched_layers
from compressor.model.views import Views


def objective(student, teacher, **options):
    return matched_layers.Objective(
        matched_layers.Options(**options), pairs.context(student, teacher)
    )


@pytest.mark.parametrize(
    ("count", "depth", "layers"),
    [(4, 12, [3, 6, 9, 12]), (4, 6, [1, 3, 4, 6]), (1, 6, [6]), (6, 6, [1, 2, 3, 4, 5, 6])],
)
def test_layers_are_spread_up_to_the_last(count, depth, layers):
    assert matched_layers.spread(count, depth) == layers


def test_each_layer_is_learnt_by_the_closest_one():
    model = tiny.model(num_hidden_layers=3, hidden_size=2, num_attention_heads=1)

    def state(*values):
        return torch.tensor([[list(values), [9.0, 9.0]]])  # the second token is padding

    rows = {"attention_mask": torch.tensor([[1, 0]])}
    # The embeddings' output, which would fit best, is no layer.
    seen = Views(hidden=(state(1, 1), state(3, 3), state(0, 1), state(5, 5)))
    shown = Views(hidden=(state(0, 0), state(9, 9), state(9, 9), state(1, 1)))
    made = objective(model, model, matched_layers=1)
    loss = made.loss(rows, seen, shown)
    assert loss.parts["matched_layers"].item() == pytest.approx(0.5)  # (1 + 0) / 2, the second
    assert loss.total.item() == pytest.approx(4.5)


def test_a_student_equal_to_its_teacher_has_no_loss():
    model, rows = tiny.model(), pairs.batch()
    seen = pairs.headless(pairs.views(model, rows))
    made = objective(model, model, matched_layers=2)
    assert made.loss(rows, seen, pairs.detached(seen)).total.item() == pytest.approx(0, abs=1e-10)


def test_other_width_padding_and_gradients():
    student, teacher = tiny.model(), tiny.model(hidden_size=48, seed=1)
    rows = pairs.batch()
    seen = pairs.headless(pairs.views(student, rows))
    shown = pairs.detached(pairs.views(teacher, rows))
    made = objective(student, teacher, matched_layers=2)
    pairs.assert_ignores_padding(lambda: made, seen, shown, rows)
    made.loss(rows, seen, shown).total.backward()
    assert made.module.weight.grad.abs().max() > 0


def test_more_layers_than_the_teacher_has():
    with pytest.raises(UsageError, match="the teacher has 2 layers"):
        objective(tiny.model(), tiny.model(), matched_layers=3)
