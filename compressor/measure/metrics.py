"""Accuracy, F1, correlations and perplexity from arrays, each with a 95 % bootstrap interval.

A bootstrap sample is a draw of rows with replacement, and every metric here depends only on how
often each row was drawn. So one sample is one vector of counts, and a thousand samples are a
matrix that the metric is computed on at once. For classification the rows that share a true and a
predicted class are alike, so the counts run over the cells of the confusion matrix.

A model whose outputs are not finite has no metric: `nan` comes back, never a score that counts
its rows as class 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from compressor.errors import InputError
from compressor.measure.correlation import correlation, ranks

CLASSIFICATION = ("text-classification", "image-classification")
REGRESSION = "regression"
LANGUAGE = ("masked-lm", "causal-lm")

LOWER_IS_BETTER = frozenset({"perplexity", "mse", "loss"})

# Counts held in memory at a time while resampling (8 bytes each).
_CELLS_AT_ONCE = 2_000_000


def evaluate_predictions(
    task_name: str, outputs: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Every metric of a task; `nan` where outputs are not finite or the metric is undefined.

    Args:
        task_name: a name of CLASSIFICATION or LANGUAGE, or REGRESSION.
        outputs: logits [rows, classes]; predicted values [rows] or [rows, 1] for regression;
            summed negative log-likelihood of each row [rows], in nats, for language models.
        labels: class numbers [rows]; true values [rows]; predicted tokens in each row [rows].

    Returns:
        Metric name to value: accuracy, f1_macro, matthews (and f1 of class 1 when there are two
        classes); pearson, spearman, mse; perplexity.

    Raises:
        InputError: no rows, shapes that do not fit, or a label outside the logits' classes.
    """
    outputs, labels = _checked(task_name, outputs, labels)
    names = _metric_names(task_name, outputs)
    if not np.isfinite(outputs).all():
        return dict.fromkeys(names, math.nan)
    if task_name in CLASSIFICATION:
        cells, counts = _confusion_cells(outputs, labels)
        values = {
            name: classification_metric(name, cells, counts[None], outputs.shape[1])
            for name in names
        }
    else:
        once = np.ones((1, len(labels)))
        values = {name: row_metric(name, outputs, labels, once) for name in names}
    return {name: float(value[0]) for name, value in values.items()}


def perplexity(total_nll: float, tokens: int) -> float:
    """exp(negative log-likelihood in nats / number of predicted tokens); infinite on overflow.

    Raises:
        InputError: no tokens were predicted.
    """
    if tokens <= 0:
        raise InputError("perplexity needs at least one predicted token, found none")
    try:
        return math.exp(total_nll / tokens)
    except OverflowError:
        return math.inf


def bootstrap_interval(
    task_name: str,
    metric: str,
    outputs: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    rounds: int = 1000,
) -> tuple[float, float]:
    """The 95 % percentile interval of `metric` over resampled rows.

    Args:
        task_name: as in `evaluate_predictions`, and so are `outputs` and `labels`.
        metric: one of the names that `evaluate_predictions` returns for the task.
        outputs: see above.
        labels: see above.
        seed: the same seed gives the same interval.
        rounds: how many samples are drawn.

    Returns:
        (low, high); both `nan` when outputs are not finite or no sample defines the metric.

    Raises:
        InputError: as `evaluate_predictions`, or a metric that the task does not have.
    """
    outputs, labels = _checked(task_name, outputs, labels)
    names = _metric_names(task_name, outputs)
    if metric not in names:
        raise InputError(f"task {task_name} has no metric {metric!r}; it has {', '.join(names)}")
    if not np.isfinite(outputs).all():
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    if task_name in CLASSIFICATION:
        values = _resampled_classes(metric, outputs, labels, generator, rounds)
    else:
        values = [
            row_metric(metric, outputs, labels, weights)
            for weights in resampled_rows(len(labels), generator, rounds)
        ]
    drawn = np.concatenate(values)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return math.nan, math.nan
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def score(
    task_name: str, metric: str, outputs: np.ndarray, labels: np.ndarray, *, seed: int = 0
) -> dict[str, object]:
    """The `accuracy` entry of a report for one model.

    Args:
        task_name: as in `evaluate_predictions`, and so are `outputs` and `labels`.
        metric: the task's primary metric.
        outputs: see above.
        labels: see above.
        seed: of the bootstrap.

    Returns:
        metric, value, n (rows), low, high, all (value, low and high of every metric), not_finite
        (rows whose outputs hold NaN or infinity), predicted (rows per predicted class, or None)
        and tokens (of a language model those that were scored, or None).

    Raises:
        InputError: as `bootstrap_interval`.
        KeyError: the task has no such metric.
    """
    every = {}
    for name, value in evaluate_predictions(task_name, outputs, labels).items():
        low, high = bootstrap_interval(task_name, name, outputs, labels, seed=seed)
        every[name] = {"value": value, "low": low, "high": high}
    finite = np.isfinite(np.asarray(outputs, dtype=np.float64)).reshape(len(labels), -1).all(axis=1)
    predicted = None
    if task_name in CLASSIFICATION and finite.all():
        predicted = np.bincount(np.argmax(outputs, axis=1), minlength=outputs.shape[1]).tolist()
    return {
        "metric": metric,
        "n": len(labels),
        **every[metric],
        "all": every,
        "not_finite": int((~finite).sum()),
        "predicted": predicted,
        "tokens": int(labels.sum()) if task_name in LANGUAGE else None,
    }


def _metric_names(task_name: str, outputs: np.ndarray) -> tuple[str, ...]:
    if task_name in CLASSIFICATION:
        names = ("accuracy", "f1_macro", "matthews")
        return (*names, "f1") if outputs.shape[1] == 2 else names
    return ("pearson", "spearman", "mse") if task_name == REGRESSION else ("perplexity",)


def _checked(
    task_name: str, outputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs as float64 ([rows, classes] or [rows]) and labels [rows], or words on why not."""
    if task_name not in (*CLASSIFICATION, REGRESSION, *LANGUAGE):
        raise InputError(f"no metrics are known for task {task_name!r}")
    outputs, labels = np.asarray(outputs, dtype=np.float64), np.asarray(labels)
    if not len(labels):
        raise InputError("no rows to evaluate: the labels are empty")
    if task_name in CLASSIFICATION:
        expected = outputs.ndim == 2 and outputs.shape[1] >= 2
    else:
        outputs = outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
        expected = outputs.ndim == 1
    if not expected or labels.shape != (len(outputs),):
        wanted = "[rows, 2 or more]" if task_name in CLASSIFICATION else "[rows] or [rows, 1]"
        raise InputError(
            f"{task_name} needs outputs {wanted} and labels [rows]; "
            f"found {list(outputs.shape)} and {list(labels.shape)}"
        )
    if task_name in CLASSIFICATION:
        _check_classes(labels, outputs.shape[1])
    elif not np.isfinite(labels.astype(np.float64)).all():
        raise InputError(f"the labels of {task_name} hold NaN or infinity")
    if task_name in LANGUAGE and labels.sum() <= 0:
        raise InputError("perplexity needs at least one predicted token, found none")
    return outputs, labels


def _check_classes(labels: np.ndarray, classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"class labels must be whole numbers, found {labels.dtype}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise InputError(
            f"label {outside[0]} in {len(outside)} rows, but the model has {classes} classes "
            f"(0 to {classes - 1})"
        )


def _confusion_cells(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The filled cells of the confusion matrix: (true, predicted) [cells, 2] and counts [cells]."""
    pairs = np.stack([labels, np.argmax(outputs, axis=1)], axis=1)
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    return cells, counts.astype(np.float64)


def _resampled_classes(
    metric: str,
    outputs: np.ndarray,
    labels: np.ndarray,
    generator: np.random.Generator,
    rounds: int,
) -> list[np.ndarray]:
    cells, counts = _confusion_cells(outputs, labels)
    rows, values = len(labels), []
    step = max(1, _CELLS_AT_ONCE // (len(cells) + 3 * outputs.shape[1]))
    for start in range(0, rounds, step):
        drawn = generator.multinomial(rows, counts / rows, size=min(step, rounds - start))
        values.append(
            classification_metric(metric, cells, drawn.astype(np.float64), outputs.shape[1])
        )
    return values


def classification_metric(
    metric: str, cells: np.ndarray, counts: np.ndarray, classes: int
) -> np.ndarray:
    """One value per sample [samples] from the counts of the cells [samples, cells]."""
    actual = counts @ np.eye(classes)[cells[:, 0]]  # [samples, classes]
    predicted = counts @ np.eye(classes)[cells[:, 1]]  # [samples, classes]
    on_diagonal = (cells[:, 0] == cells[:, 1])[:, None]
    right = counts @ (np.eye(classes)[cells[:, 0]] * on_diagonal)  # [samples, classes]
    total = actual.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "accuracy":
            return right.sum(axis=1) / total
        if metric == "f1":
            return 2 * right[:, 1] / (actual[:, 1] + predicted[:, 1])
        if metric == "f1_macro":
            # A class that is neither true nor predicted anywhere has no F1 and is left out.
            seen = actual + predicted > 0
            each = np.where(seen, 2 * right / (actual + predicted), 0.0)
            return each.sum(axis=1) / seen.sum(axis=1)
        agreement = total * right.sum(axis=1) - (actual * predicted).sum(axis=1)
        spread_actual = total**2 - (actual**2).sum(axis=1)
        spread_predicted = total**2 - (predicted**2).sum(axis=1)
        value = agreement / np.sqrt(spread_actual * spread_predicted)
        # One predicted class knows nothing: 0 by convention. One true class: undefined.
        return np.where((spread_predicted == 0) & (spread_actual > 0), 0.0, value)


def resampled_rows(rows: int, generator: np.random.Generator, rounds: int) -> Iterator[np.ndarray]:
    """How often each row was drawn, [samples, rows] at a time."""
    step = max(1, _CELLS_AT_ONCE // rows)
    for start in range(0, rounds, step):
        samples = min(step, rounds - start)
        drawn = generator.integers(0, rows, size=(samples, rows))
        drawn += np.arange(samples)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=samples * rows)
        yield counts.reshape(samples, rows).astype(np.float64)


def row_metric(
    metric: str, outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """One value per sample [samples]; `weights` [samples, rows] counts each row's draws."""
    labels = labels.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if metric == "perplexity":
            return np.exp((weights @ outputs) / (weights @ labels))
        if metric == "mse":
            return (weights @ (outputs - labels) ** 2) / weights.sum(axis=1)
        if metric == "spearman":
            return correlation(ranks(outputs, weights), ranks(labels, weights), weights)
        return correlation(outputs, labels, weights)
