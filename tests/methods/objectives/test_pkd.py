"""Hand values, the skip map at several depths, and models without a summary in front."""

import pytest
import torch

import pairs
import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.objectives import pkd
from compressor.model.views import Views


def objective(student, teacher, **options):
    return pkd.Objective(pkd.Options(**options), pairs.context(student, teacher))


@pytest.mark.parametrize(("form", "expected"), [("sum", 0.08), ("mean", 0.04)])
def test_hand_values(form, expected):
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert pkd.patience(student, teacher, form).item() == pytest.approx(expected, abs=1e-6)
    longer = pkd.patience(10 * student, teacher, form)
    assert longer.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (6, 12, [2, 4, 6, 8, 10]),
        (3, 12, [4, 8]),
        (4, 6, [1, 3, 4]),
        (2, 4, [2]),
        (1, 4, [4]),
        (3, 3, [1, 2]),
    ],
)
def test_skip_map(student, teacher, expected):
    assert pkd.skip_pairs(student, teacher) == list(enumerate(expected, start=1))


def test_a_deeper_student_is_refused():
    with pytest.raises(UsageError, match="student has 4 layers and the teacher only 2"):
        pkd.skip_pairs(4, 2)


def test_mean_over_pairs_and_weight():
    student, teacher = tiny.model(num_hidden_layers=3), tiny.model(num_hidden_layers=3, seed=1)
    rows = pairs.batch()
    seen, shown = pairs.views(student, rows), pairs.views(teacher, rows)
    loss = objective(student, teacher, patience_weight=5.0).loss(rows, seen, shown)
    single = [
        pkd.patience(seen.hidden[m][:, 0], shown.hidden[m][:, 0], "sum").item() for m in (1, 2)
    ]
    assert loss.parts["patience"].item() == pytest.approx(sum(single) / 2)
    assert loss.total.item() == pytest.approx(5 * sum(single) / 2)


def test_the_first_real_token_counts_whatever_side_is_padded():
    hidden = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert pkd.first_tokens(hidden, mask).tolist() == [[0.0, 1.0], [8.0, 9.0]]


def test_a_student_equal_to_its_teacher_has_no_loss():
    model, rows = tiny.model(), pairs.batch()
    seen = pairs.headless(pairs.views(model, rows))
    made = objective(model, model, patience_pairs="bottom")
    assert made.pairs == [(1, 1), (2, 2)]
    assert made.loss(rows, seen, pairs.detached(seen)).total.item() == 0


def test_gradient_of_a_zero_state_is_finite():
    model = tiny.model(num_hidden_layers=1)
    states = torch.zeros(1, 2, 32, requires_grad=True)
    seen, shown = Views(hidden=(states, states)), Views(hidden=(torch.ones(1, 2, 32),) * 2)
    rows = {"attention_mask": torch.ones(1, 2)}
    objective(model, model).loss(rows, seen, shown).total.backward()
    assert states.grad.isfinite().all()


def test_other_width_padding_and_gradients():
    student, teacher = tiny.model(), tiny.model(hidden_size=48, num_hidden_layers=4, seed=1)
    rows = pairs.batch()
    seen = pairs.headless(pairs.views(student, rows))
    shown = pairs.detached(pairs.views(teacher, rows))
    made = objective(student, teacher)
    pairs.assert_ignores_padding(lambda: made, seen, shown, rows)
    pairs.assert_finite_gradients(made.loss(rows, seen, shown), student, made.module)


def test_a_decoder_is_refused():
    decoder = tiny.model("gpt2")
    with pytest.raises(InputError, match="gpt2 is none of albert, bert") as refusal:
        objective(decoder, decoder)
    assert "hidden_mse" in refusal.value.hint


def test_a_broken_map_names_its_own_flag():
    model = tiny.model()
    with pytest.raises(UsageError, match="--patience-pairs 1:9"):
        objective(model, model, patience_pairs="1:9")
