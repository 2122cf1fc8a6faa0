"""Scores where somebody looks: the same numbers and gradients, of fewer tokens."""

import numpy as np
import pytest
import torch

import tiny
from compressor.methods.contract import Context
from compressor.methods.objectives import soft_labels, task
from compressor.model.output_rows import only_at
from compressor.train.criterion import Criterion
from compressor.train.evaluate import torch_forward

FAMILIES = ["bert", "roberta", "distilbert", "electra", "mpnet", "albert"]


def masked_batch():
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (3, 9), generator=draw)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=draw) > 0.3, -100)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def model_of(family):
    return tiny.model(family, head="AutoModelForMaskedLM", labels=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_positions_alone(family):
    model, batch = model_of(family), masked_batch()
    chosen = batch["labels"] != -100
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        whole = model(**inputs).logits
        with only_at(model, chosen) as narrows:
            some = model(**inputs).logits
        again = model(**inputs).logits
    assert narrows
    torch.testing.assert_close(some[0], whole[chosen])
    assert torch.equal(again, whole)


def test_other_models_are_left_alone():
    with only_at(tiny.model(), torch.ones(1, 1, dtype=torch.bool)) as narrows:
        assert not narrows


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_same(family, monkeypatch):
    found = []
    for labelled_only in (True, False):
        monkeypatch.setattr(task.Objective, "labelled_only", labelled_only)
        model = model_of(family)
        context = Context(model, "masked-lm")
        criterion = Criterion([task.Objective(task.Options(), context)], context)
        assert criterion.asks_labelled == labelled_only
        loss = criterion(masked_batch(), None).total
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_batch_without_labels_has_no_loss():
    model, batch = model_of("bert"), masked_batch()
    batch["labels"] = torch.full_like(batch["labels"], -100)
    context = Context(model, "masked-lm")
    loss = Criterion([task.Objective(task.Options(), context)], context)(batch, None).total
    assert loss.item() == 0
    loss.backward()


def test_objectives_that_look_at_every_token_get_every_token():
    model = model_of("bert")
    context = Context(model, "masked-lm", teacher_config=model.config)
    objectives = [soft_labels.Objective(soft_labels.Options(), context)]
    assert not Criterion(objectives, context).asks_labelled


def test_scores_of_an_evaluation():
    model = model_of("bert").eval()
    arrays = {name: value.numpy() for name, value in masked_batch().items()}
    chosen = arrays["labels"] != -100
    forward = torch_forward(model)
    whole = forward({name: arrays[name] for name in ("input_ids", "attention_mask")})
    np.testing.assert_allclose(forward(arrays), whole[chosen], atol=1e-6)
