"""Identities of the intermediate loss, its layer map, and gradients that must not be zero."""

import pytest
import torch

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Context
from compressor.methods.objectives import tinybert
from compressor.methods.objectives.tinybert import score_distance, scores
from compressor.model.inputs import fed
from compressor.model.pruned import remove_units
from compressor.model.views import ATTENTION, HIDDEN, look

SHOWS = frozenset({HIDDEN, ATTENTION})


def batch_of(*texts):
    return dict(tiny.tokenizer()(list(texts), padding=True, return_tensors="pt"))


def objective(teacher, student, **options):
    context = Context(
        student,
        "text-classification",
        student_config=student.config,
        teacher_config=teacher.config,
    )
    return tinybert.Objective(tinybert.Options(**options), context)


def views(model, batch):
    return look(model, batch, SHOWS, bare=model)


def test_scores_of_one_head_by_hand():
    queries = torch.tensor([[[1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]])
    keys = torch.tensor([[[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]]])
    found = scores(queries, keys, 1)[0, 0]
    torch.testing.assert_close(found, torch.tensor([[1.5, 4.0], [0.0, 2.0]]))


def test_scores_are_what_the_model_attends_with():
    model = tiny.model()
    batch = batch_of("a great film")
    model.set_attn_implementation("eager")
    seen = views(model, batch)
    with torch.no_grad():
        attended = model(**fed(model, batch), output_attentions=True).attentions
    for layer, expected in enumerate(attended):
        found = scores(seen.queries[layer], seen.keys[layer], 4).softmax(-1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_distance_counts_pairs_of_real_tokens_only():
    student, teacher = torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 2.0)
    teacher[:, :, 2], teacher[:, :, :, 2] = 99.0, 99.0
    assert score_distance(student, teacher, torch.tensor([[1, 1, 0]])).item() == 4.0


def test_a_copy_has_no_loss_and_padding_changes_nothing():
    teacher, student = tiny.model(seed=1), tiny.model(seed=1)
    other = tiny.model(seed=2)
    short, padded = batch_of("great film"), batch_of("great film", "a very long and dull plot")
    padded = {name: value[:1] for name, value in padded.items()}
    loss = objective(teacher, student).loss(short, views(student, short), views(teacher, short))
    assert loss.total.item() < 1e-6
    totals = [
        objective(teacher, other).loss(b, views(other, b), views(teacher, b)).total.item()
        for b in (short, padded)
    ]
    assert totals[0] > 0.1
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


def test_attention_alone_moves_every_query_and_key_and_no_value_of_the_last_layer():
    teacher, student = tiny.model(seed=1, num_hidden_layers=4), tiny.model(seed=2)
    batch = batch_of("great film", "awful plot")
    found = objective(teacher, student, hidden_weight=0.0, embedding_weight=0.0)
    found.loss(batch, views(student, batch), views(teacher, batch)).total.backward()
    for layer in student.bert.encoder.layer:
        parts = layer.attention.self
        assert parts.query.weight.grad.abs().max() > 0
        assert parts.key.weight.grad.abs().max() > 0
    last = parts.value.weight.grad
    assert last is None or not last.any()


@pytest.mark.parametrize(("projection", "count"), [("shared", 1), ("per-layer", 3)])
def test_a_narrower_student_learns_its_projections(projection, count):
    teacher = tiny.model(seed=1, num_hidden_layers=4)
    student = tiny.model(seed=2, hidden_size=16)
    batch = batch_of("great film")
    found = objective(teacher, student, projection=projection)
    assert len(found.module) == count
    assert [tuple(one.weight.shape) for one in found.module] == [(32, 16)] * count
    found.loss(batch, views(student, batch), views(teacher, batch)).total.backward()
    assert all(one.weight.grad.abs().max() > 0 for one in found.module)


def test_refusals():
    with pytest.raises(UsageError, match="divides"):
        objective(tiny.model(num_hidden_layers=3), tiny.model())
    with pytest.raises(UsageError, match="one by one") as caught:
        objective(tiny.model(), tiny.model(num_attention_heads=2))
    assert "minilm_v2" in caught.value.hint
    with pytest.raises(InputError, match="llama"):
        objective(tiny.model(), tiny.model("llama"))
    narrow = tiny.model()
    remove_units(narrow, [[0], [1, 2]], [[1, 2], [3]])
    with pytest.raises(InputError, match=r"one by one, .* have 1, 2") as refused:
        objective(tiny.model(), narrow)
    assert "minilm_v2" in refused.value.hint
