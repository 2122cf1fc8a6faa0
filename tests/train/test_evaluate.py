"""Scores over a split: rows in their own order, tokens by hand, the same for any batch size."""

import math
from dataclasses import replace

import numpy as np
import pytest

import tiny
from compressor.data.dataset import open_dataset
from compressor.data.encode import encode
from compressor.train.evaluate import evaluate, torch_forward
from compressor.train.feed import Feed


def feed_of(folder, task=None, rows=30):
    dataset = open_dataset(str(tiny.data(folder / "data", train=rows)), task=task)
    tokenizer = tiny.tokenizer()
    encoded = encode(
        dataset.rows("train"), tokenizer, dataset.task, max_length=32, folder=folder / "rows"
    )
    return Feed(encoded, tokenizer, dataset.task, 8)


def test_outputs_stand_in_the_order_of_the_rows_whatever_the_batches(tmp_path):
    feed = feed_of(tmp_path)
    forward = torch_forward(tiny.model())
    first, second = (evaluate(forward, replace(feed, batch_size=size)) for size in (3, 30))
    np.testing.assert_allclose(first.outputs, second.outputs, atol=1e-5)
    assert first.metrics["accuracy"] == second.metrics["accuracy"]
    assert first.count == 30


def test_perfect_answers_score_one(tmp_path):
    feed = feed_of(tmp_path)
    labels = np.asarray(feed.encoded.labels)
    plan = iter(feed.plan(0, shuffle=False))
    result = evaluate(lambda arrays: np.eye(2)[labels[next(plan)]], feed)
    assert result.metrics["accuracy"] == 1.0


@pytest.mark.parametrize("task", ["masked-lm", "causal-lm"])
def test_uniform_guesses_have_the_vocabularys_perplexity(tmp_path, task):
    feed = feed_of(tmp_path, task)
    vocabulary = len(feed.tokenizer)
    result = evaluate(lambda arrays: np.zeros((*arrays["input_ids"].shape, vocabulary)), feed)
    assert result.metrics["perplexity"] == pytest.approx(vocabulary)
    assert result.outputs.sum() == pytest.approx(result.count * math.log(vocabulary))
    if task == "causal-lm":  # every token but the first of each row
        assert result.count == int(feed.encoded.lengths.sum()) - 30


def test_every_model_is_asked_about_the_same_masked_tokens(tmp_path):
    feed = feed_of(tmp_path, "masked-lm")
    seen = []
    for _ in range(2):
        asked = []

        def forward(arrays, asked=asked):
            asked.append(arrays["input_ids"].copy())
            return np.zeros((*arrays["input_ids"].shape, len(feed.tokenizer)))

        evaluate(forward, feed)
        seen.append(asked)
    assert all(np.array_equal(a, b) for a, b in zip(*seen, strict=True))
