"""Hand values of the relation loss, what it must not change under, and where gradients reach."""

import pytest
import torch

import tiny
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.objectives import minilm_v2
from compressor.methods.objectives.minilm_v2 import relation_loss, relations
from compressor.model.pruned import remove_units
from compressor.model.views import ATTENTION, look

TEACHER = torch.tensor([[[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]])
STUDENT = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])
BOTH = torch.ones(1, 2)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("heads", "expected"), [(1, 0.015759), (2, 0.105929)])
def test_hand_values(heads, expected):
    loss = relation_loss(STUDENT, TEACHER, BOTH, heads)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_one_relation_head_is_the_plain_formula():
    states = random(2, 5, 12)
    expected = torch.softmax(states @ states.transpose(1, 2) / 12**0.5, -1)
    found = relations(states, torch.ones(2, 5), 1).exp()[:, 0]
    torch.testing.assert_close(found, expected)


def test_heads_split_the_width_and_not_the_positions():
    states = random(1, 3, 4)
    first = relations(states[..., :2], torch.ones(1, 3), 1)[:, 0]
    torch.testing.assert_close(relations(states, torch.ones(1, 3), 2)[:, 0], first)


def test_rotation_inside_a_head_and_order_of_tokens_do_not_matter():
    student, teacher, mask = random(2, 5, 8), random(2, 5, 12, seed=1), torch.ones(2, 5)
    plain = relation_loss(student, teacher, mask, 2)
    turn, _ = torch.linalg.qr(random(4, 4, seed=2))
    turned = torch.cat([student[..., :4] @ turn, student[..., 4:] @ turn.T], -1)
    torch.testing.assert_close(relation_loss(turned, teacher, mask, 2), plain)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(relation_loss(student[:, order], teacher[:, order], mask, 2), plain)


def test_padding_changes_nothing():
    student, teacher = random(2, 3, 8), random(2, 3, 12, seed=1)
    plain = relation_loss(student, teacher, torch.ones(2, 3), 4)
    noise = 50 * random(2, 2, 12, seed=3)
    padded = relation_loss(
        torch.cat([student, noise[..., :8]], 1),
        torch.cat([teacher, noise], 1),
        torch.tensor([[1.0, 1, 1, 0, 0]] * 2),
        4,
    )
    torch.testing.assert_close(padded, plain)


def pair():
    teacher = tiny.model(seed=1, num_hidden_layers=4, hidden_size=48, num_attention_heads=6)
    student = tiny.model(seed=2)
    batch = dict(tiny.tokenizer()(["great film", "awful"], padding=True, return_tensors="pt"))
    return teacher, student, batch


def objective(teacher, student, **options):
    context = Context(
        student,
        "text-classification",
        student_config=student.config,
        teacher_config=teacher.config,
    )
    return minilm_v2.Objective(minilm_v2.Options(**options), context)


def views(model, batch):
    return look(model, batch, frozenset({ATTENTION}), bare=model)


def test_gradients_reach_queries_keys_and_values_of_the_last_layer_and_all_below():
    teacher, student, batch = pair()
    loss = objective(teacher, student).loss(batch, views(student, batch), views(teacher, batch))
    loss.total.backward()
    last = student.bert.encoder.layer[-1]
    for part in (last.attention.self.query, last.attention.self.key, last.attention.self.value):
        assert part.weight.grad.abs().max() > 0
    assert student.bert.encoder.layer[0].output.dense.weight.grad.abs().max() > 0
    for part in (last.attention.output.dense, last.intermediate.dense, last.output.dense):
        assert part.weight.grad is None


def test_the_teachers_layer_can_be_chosen():
    teacher, student, batch = pair()
    seen = views(student, batch), views(teacher, batch)
    last = objective(teacher, student).loss(batch, *seen).total
    assert objective(teacher, student, relation_layer=4).loss(batch, *seen).total == last
    assert objective(teacher, student, relation_layer=3).loss(batch, *seen).total != last


def test_refusals():
    teacher, student, _ = pair()
    with pytest.raises(UsageError, match="width of 32") as caught:
        objective(teacher, student, relation_heads=12)
    assert "1, 2, 4, 8, 16" in caught.value.hint
    with pytest.raises(UsageError, match="4 layers"):
        objective(teacher, student, relation_layer=5)


def test_a_student_without_some_of_its_heads():
    teacher, student, batch = pair()
    remove_units(student, [[0, 1, 2, 3], [0, 1, 3]], [[1, 2], [3]])
    wide = objective(teacher, student, relation_heads=8)
    loss = wide.loss(batch, views(student, batch), views(teacher, batch))
    assert loss.total.isfinite()
    with pytest.raises(UsageError, match="16 relation heads do not divide a width of 24") as caught:
        objective(teacher, student, relation_heads=16)
    assert "one of 1, 2, 3, 4, 6, 8" in caught.value.hint
