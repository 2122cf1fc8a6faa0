"""Two models on the same rows: hand values, and intervals narrower than those of either alone."""

import numpy as np
import pytest

from compressor.measure.metrics import bootstrap_interval
from compressor.measure.paired import compare, disagreements, mcnemar


def logits(classes, count=2):
    return np.eye(count)[np.asarray(classes)]


def test_mcnemar_by_hand():
    first = np.array([True] * 6 + [False] * 1 + [True] * 13)
    second = np.array([False] * 6 + [True] * 1 + [True] * 13)
    # 7 rows differ, 6 to 1: 2 (1 + 7) / 2^7
    assert mcnemar(first, second) == pytest.approx(16 / 128)
    assert mcnemar(first, first) == 1.0


def test_difference_agreement_and_interval():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 1000)
    base = np.where(draw.random(1000) < 0.9, labels, 1 - labels)
    own = base.copy()
    own[:20] = 1 - own[:20]  # twenty answers change, most of them to the worse
    found = compare("text-classification", "accuracy", logits(base), logits(own), labels)
    expected = (own == labels).mean() - (base == labels).mean()
    assert found["difference"] == pytest.approx(expected)
    assert found["agreement"] == pytest.approx(0.98)
    assert found["low"] <= expected <= found["high"]
    assert found["high"] < 0
    assert found["mcnemar"] < 0.02
    alone = bootstrap_interval("text-classification", "accuracy", logits(own), labels)
    assert found["high"] - found["low"] < 0.6 * (alone[1] - alone[0])


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "matthews"])
def test_other_metrics_of_classes(metric):
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, 400)
    base, own = (np.where(draw.random(400) < share, labels, 1 - labels) for share in (0.9, 0.8))
    found = compare("text-classification", metric, logits(base), logits(own), labels)
    assert found["low"] < found["difference"] < found["high"] < 0


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mse"])
def test_numbers(metric):
    draw = np.random.default_rng(2)
    labels = draw.normal(size=300)
    base, own = (labels + draw.normal(size=300) * noise for noise in (0.3, 0.6))
    found = compare("regression", metric, base[:, None], own[:, None], labels)
    assert found["agreement"] is None
    assert found["mcnemar"] is None
    assert (found["low"] > 0) == (metric == "mse")
    assert (found["high"] < 0) == (metric != "mse")


def test_a_broken_model_is_not_compared():
    labels = np.array([0, 1])
    broken = np.array([[np.nan, 0.0], [0.0, 1.0]])
    assert compare("text-classification", "accuracy", logits([0, 1]), broken, labels) is None


def test_rows_that_are_classified_differently():
    assert disagreements(logits([0, 1, 1, 0]), logits([0, 0, 1, 1])) == [1, 3]
