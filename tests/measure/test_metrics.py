from __future__ import annotations

import math

import numpy as np
import pytest

from compressor.errors import InputError
from compressor.measure.metrics import (
    bootstrap_interval,
    evaluate_predictions,
    perplexity,
    score,
)


def logits(predicted, classes):
    """Logits whose largest entry is at `predicted`."""
    return np.eye(classes)[np.asarray(predicted)]


def test_two_classes_by_hand():
    # 3 true positives, 1 false positive, 1 false negative, 1 true negative.
    labels = np.array([1, 1, 1, 0, 1, 0])
    found = evaluate_predictions("text-classification", logits([1, 1, 1, 1, 0, 0], 2), labels)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    # F1 of class 0: one right, one missed, one wrong.
    assert found["f1_macro"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["matthews"] == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))


def test_f1_is_only_for_two_classes():
    found = evaluate_predictions("text-classification", logits([0, 1, 2], 3), np.array([0, 1, 1]))
    assert "f1" not in found
    assert found["accuracy"] == pytest.approx(2 / 3)
    # Class 2 is predicted once and wrong: F1 0. Class 1: 2/3. Class 0: 1.
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_class_that_never_appears_does_not_lower_the_mean():
    found = evaluate_predictions("text-classification", logits([0, 1, 1], 4), np.array([0, 1, 1]))
    assert found["f1_macro"] == 1.0


def test_classification_agrees_with_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    draw = np.random.default_rng(3)
    labels = draw.integers(0, 6, 400)
    outputs = draw.normal(size=(400, 6)) + 1.5 * np.eye(6)[labels]
    predicted = outputs.argmax(axis=1)
    found = evaluate_predictions("text-classification", outputs, labels)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["f1_macro"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["matthews"] == pytest.approx(matthews_corrcoef(labels, predicted))


def test_one_predicted_class_has_matthews_zero_and_one_true_class_has_none():
    same = logits([1, 1, 1, 1], 2)
    assert (
        evaluate_predictions("text-classification", same, np.array([0, 1, 0, 1]))["matthews"] == 0
    )
    undefined = evaluate_predictions("text-classification", same, np.array([1, 1, 1, 1]))
    assert math.isnan(undefined["matthews"])
    assert undefined["accuracy"] == 1


def test_regression_by_hand():
    found = evaluate_predictions("regression", np.array([[1.0], [2.0], [4.0]]), np.array([1, 2, 3]))
    # Means 7/3 and 2: covariance 3, squares 14/3 and 2.
    assert found["pearson"] == pytest.approx(3 / math.sqrt(14 / 3 * 2))
    assert found["spearman"] == pytest.approx(1.0)
    assert found["mse"] == pytest.approx(1 / 3)


def test_regression_agrees_with_scipy_also_with_ties():
    from scipy.stats import pearsonr, spearmanr

    draw = np.random.default_rng(4)
    labels = draw.integers(0, 6, 300).astype(float)
    outputs = np.round(labels + draw.normal(size=300), 1)
    found = evaluate_predictions("regression", outputs, labels)
    assert found["pearson"] == pytest.approx(pearsonr(outputs, labels)[0])
    assert found["spearman"] == pytest.approx(spearmanr(outputs, labels)[0])


def test_constant_predictions_have_no_correlation():
    found = evaluate_predictions("regression", np.full(7, 0.1), np.arange(7.0))
    assert math.isnan(found["pearson"])
    assert math.isnan(found["spearman"])


def test_perplexity_by_hand():
    assert perplexity(2 * math.log(8), 2) == pytest.approx(8)
    assert perplexity(1e9, 1) == math.inf
    found = evaluate_predictions(
        "causal-lm", np.array([math.log(4), math.log(16)]), np.array([1, 1])
    )
    assert found["perplexity"] == pytest.approx(8)
    with pytest.raises(InputError, match="predicted token"):
        perplexity(1.0, 0)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_never_scored(broken):
    outputs = logits([0, 0, 0, 0], 2)
    outputs[2, 1] = broken
    labels = np.zeros(4, dtype=int)
    found = evaluate_predictions("text-classification", outputs, labels)
    assert all(math.isnan(value) for value in found.values())
    entry = score("text-classification", "accuracy", outputs, labels)
    assert math.isnan(entry["value"])
    assert math.isnan(entry["low"])
    assert entry["not_finite"] == 1
    assert entry["predicted"] is None


def test_score_counts_predictions():
    entry = score(
        "text-classification", "accuracy", logits([1, 1, 0], 3), np.array([1, 1, 1]), seed=1
    )
    assert entry["predicted"] == [1, 2, 0]
    assert entry["n"] == 3
    assert entry["value"] == entry["all"]["accuracy"]["value"] == pytest.approx(2 / 3)
    for found in (entry["all"]["accuracy"], entry["all"]["f1_macro"]):
        assert found["low"] < found["value"] < found["high"]
    assert entry["low"] <= entry["value"] <= entry["high"]


def test_interval_of_accuracy_is_the_binomial_one():
    labels = np.zeros(1000, dtype=int)
    outputs = logits([0] * 900 + [1] * 100, 2)
    low, high = bootstrap_interval("text-classification", "accuracy", outputs, labels, rounds=4000)
    half = 1.96 * math.sqrt(0.9 * 0.1 / 1000)
    assert low == pytest.approx(0.9 - half, abs=0.003)
    assert high == pytest.approx(0.9 + half, abs=0.003)


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mse"])
def test_interval_of_regression_equals_resampling_row_by_row(metric):
    draw = np.random.default_rng(5)
    labels = draw.normal(size=120)
    outputs = labels + draw.normal(size=120)
    low, high = bootstrap_interval("regression", metric, outputs, labels, rounds=1500)
    plain = []
    for _ in range(600):
        rows = draw.integers(0, 120, 120)
        plain.append(evaluate_predictions("regression", outputs[rows], labels[rows])[metric])
    width = np.std(plain)
    assert low == pytest.approx(np.percentile(plain, 2.5), abs=0.35 * width)
    assert high == pytest.approx(np.percentile(plain, 97.5), abs=0.35 * width)


def test_interval_of_f1_equals_resampling_row_by_row():
    draw = np.random.default_rng(6)
    labels = draw.integers(0, 3, 150)
    outputs = draw.normal(size=(150, 3)) + np.eye(3)[labels]
    name = "text-classification"
    low, high = bootstrap_interval(name, "f1_macro", outputs, labels, rounds=1500)
    plain = []
    for _ in range(600):
        rows = draw.integers(0, 150, 150)
        plain.append(evaluate_predictions(name, outputs[rows], labels[rows])["f1_macro"])
    width = np.std(plain)
    assert low == pytest.approx(np.percentile(plain, 2.5), abs=0.35 * width)
    assert high == pytest.approx(np.percentile(plain, 97.5), abs=0.35 * width)


def test_interval_depends_on_the_seed_alone():
    draw = np.random.default_rng(7)
    nll, tokens = draw.gamma(20, size=300), draw.integers(5, 20, 300)
    first = bootstrap_interval("masked-lm", "perplexity", nll, tokens, seed=1)
    assert first == bootstrap_interval("masked-lm", "perplexity", nll, tokens, seed=1)
    assert first != bootstrap_interval("masked-lm", "perplexity", nll, tokens, seed=2)
    assert first[0] < math.exp(nll.sum() / tokens.sum()) < first[1]


def test_many_rows_stay_within_memory():
    import tracemalloc

    draw = np.random.default_rng(8)
    labels = draw.normal(size=20_000)
    tracemalloc.start()
    bootstrap_interval("regression", "pearson", labels + 1, labels, rounds=300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize(
    ("task", "outputs", "labels", "words"),
    [
        ("text-classification", np.zeros((0, 2)), np.zeros(0, int), "no rows"),
        ("text-classification", np.zeros((3, 1)), np.zeros(3, int), r"found \[3, 1\]"),
        ("text-classification", np.zeros((3, 2)), np.array([0, 1, 2]), "label 2 in 1 rows"),
        ("text-classification", np.zeros((3, 2)), np.array([0, 1, -1]), "label -1"),
        ("text-classification", np.zeros((2, 2)), np.array([0.5, 1.0]), "whole numbers"),
        ("text-classification", np.zeros((2, 2)), np.zeros(3, int), r"\[2, 2\] and \[3\]"),
        ("regression", np.zeros((2, 3)), np.zeros(2), r"found \[2, 3\]"),
        ("regression", np.zeros(2), np.array([0.0, math.nan]), "labels of regression hold NaN"),
        ("causal-lm", np.zeros(2), np.zeros(2, int), "predicted token"),
        ("summarising", np.zeros(2), np.zeros(2, int), "'summarising'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(task, outputs, labels, words):
    with pytest.raises(InputError, match=words):
        evaluate_predictions(task, outputs, labels)


def test_a_metric_of_another_task_is_refused():
    with pytest.raises(InputError, match="no metric 'f1'; it has accuracy, f1_macro, matthews"):
        bootstrap_interval("text-classification", "f1", logits([0, 1, 2], 3), np.array([0, 1, 2]))
