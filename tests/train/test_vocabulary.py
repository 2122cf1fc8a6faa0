"""Training the words in use gives what training all of them gives."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import tiny
from compressor.data.dataset import open_dataset
from compressor.data.encode import encode
from compressor.model.inputs import fed
from compressor.train.feed import Feed
from compressor.train.vocabulary import words_in_use

CPU = torch.device("cpu")


@pytest.fixture
def feed(tmp_path):
    return make_feed(tmp_path)


def make_feed(folder, task=None):
    dataset = open_dataset(str(tiny.data(folder / "data", train=40)), task=task)
    tokenizer = tiny.tokenizer()
    encoded = encode(
        dataset.rows("train"), tokenizer, dataset.task, max_length=32, folder=folder / "rows"
    )
    return Feed(encoded, tokenizer, dataset.task, 8, seed=0)


def trained(feed, context, weight_decay):
    """The model after one epoch inside `context(model)`."""
    model = tiny.model(seed=1)  # in evaluation mode: no dropout
    with context(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
        for rows in feed.plan(0):
            batch = feed.batch(rows, CPU)
            optimizer.zero_grad()
            model(**fed(model, batch), labels=batch["labels"]).loss.backward()
            optimizer.step()
    return model


def words(model):
    return model.get_input_embeddings().weight.detach()


def test_same_weights_as_training_the_whole_table(feed):
    whole = trained(feed, lambda model: nullcontext(), weight_decay=0.0)
    small = trained(feed, lambda model: words_in_use(model, feed), weight_decay=0.0)
    assert whole.state_dict().keys() == small.state_dict().keys()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_words_out_of_use_stand_still_even_under_weight_decay(feed):
    small = trained(feed, lambda model: words_in_use(model, feed), weight_decay=0.1)
    used = np.unique(feed.encoded.ids)
    unused = np.setdiff1d(np.arange(len(words(small))), used)
    before = words(tiny.model(seed=1))
    assert len(unused) > 20
    assert torch.equal(words(small)[unused], before[unused])
    moved = (words(small)[used] - before[used]).abs().amax(1)
    assert (moved > 0).all()


def test_other_words_are_looked_up_in_the_full_table(feed):
    model = tiny.model(seed=1)
    ids = torch.arange(len(words(model)))[None, :60]
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with words_in_use(model, feed):
            assert len(model.get_input_embeddings().weight) < len(words(tiny.model()))
            torch.testing.assert_close(model(input_ids=ids).logits, plain)


def test_a_table_that_is_shared_or_a_language_model_is_left_alone(tmp_path):
    feed = make_feed(tmp_path, task="masked-lm")
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    table = model.get_input_embeddings()
    with words_in_use(model, feed):
        assert model.get_input_embeddings() is table
