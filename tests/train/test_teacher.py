"""The teacher is asked once per row."""

import numpy as np
import torch

import tiny
from compressor.data.dataset import open_dataset
from compressor.data.encode import encode
from compressor.methods.contract import model_inputs
from compressor.model.load import Loaded
from compressor.model.views import LOGITS
from compressor.train.feed import Feed
from compressor.train.run import Taught
from compressor.train.teacher import Teacher

CPU = torch.device("cpu")


def make_feed(folder, task=None):
    dataset = open_dataset(str(tiny.data(folder / "data", train=40)), task=task)
    tokenizer = tiny.tokenizer()
    encoded = encode(
        dataset.rows("train"), tokenizer, dataset.task, max_length=32, folder=folder / "rows"
    )
    return Feed(encoded, tokenizer, dataset.task, 8, seed=0)


def asking(teacher, feed, file, *others):
    """A function from a batch to the logits."""
    taught = [Taught(teacher), *others]
    shows = frozenset({LOGITS})
    made = Teacher(taught, feed, CPU, shows, cache_file=file, check=lambda: None)
    return lambda batch: made(batch).logits


def test_cached_answers_equal_live_ones_and_outlive_the_model(tmp_path):
    feed = make_feed(tmp_path)
    model = tiny.model()
    teacher = Loaded(model, feed.tokenizer, None, "text-classification")
    file = tmp_path / "state" / "teacher.npy"
    ask = asking(teacher, feed, file)
    for rows in feed.plan(3):
        batch = feed.batch(rows, CPU)
        with torch.no_grad():
            live = model(**model_inputs(batch)).logits
        torch.testing.assert_close(ask(batch), live, rtol=1e-4, atol=1e-5)
    assert np.load(file).shape == (40, 2)

    def never(*_, **__):
        raise AssertionError("the teacher was asked again")

    model.forward = never
    again = asking(teacher, feed, file)
    assert torch.equal(again(batch), ask(batch))


def test_a_masked_lm_is_asked_each_time_because_its_inputs_change(tmp_path):
    feed = make_feed(tmp_path, task="masked-lm")
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    teacher = Loaded(model, feed.tokenizer, None, "masked-lm")
    file = tmp_path / "teacher.npy"
    ask = asking(teacher, feed, file)
    rows = feed.plan(0)[0]
    first, second = (feed.batch(rows, CPU, epoch, 0) for epoch in (0, 1))
    assert not torch.equal(first["input_ids"], second["input_ids"])
    assert not torch.equal(ask(first), ask(second))
    assert not file.exists()
