"""Two models on the same rows: what one lost against the other, and how sure that is.

Most rows are answered alike, so the difference of two scores is known far better than either score.
The interval comes from resampling rows, both models' answers together; McNemar's exact test looks
only at the rows that one of them answers right: with b and c of them, twice the chance of at most
min(b, c) heads in b + c tosses (Q. McNemar, 1947).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from compressor.measure.metrics import (
    CLASSIFICATION,
    classification_metric,
    evaluate_predictions,
    resampled_rows,
    row_metric,
)

ROUNDS = 1000


def same_tokens(own: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> bool:
    """Whether two entries of `metrics.score` may be compared.

    A tokenizer that cuts the same rows into other tokens gives another language model's perplexity.
    """
    return (own or {}).get("tokens") == (base or {}).get("tokens")


def compare(
    task_name: str,
    metric: str,
    base: np.ndarray,
    own: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The `paired` entry of a report for one model.

    Args:
        task_name: as in `metrics.evaluate_predictions`, and so are the outputs and labels.
        metric: the task's primary metric.
        base: the baseline's outputs.
        own: the model's outputs on the same rows.
        labels: of the rows.
        seed: of the resampling.

    Returns:
        difference (own metric - the baseline's), low and high (95 %), agreement (share of rows
        with the same predicted class) and mcnemar (p), the last two None elsewhere; None where
        outputs are not finite, or their rows are not the same.
    """
    if len(base) != len(own) or not (np.isfinite(base).all() and np.isfinite(own).all()):
        return None
    values = [evaluate_predictions(task_name, each, labels)[metric] for each in (base, own)]
    classes = task_name in CLASSIFICATION
    drawn = (_classes if classes else _rows)(metric, base, own, labels, seed)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (math.nan, math.nan)
    chosen = [each.argmax(1) for each in (base, own)] if classes else None
    return {
        "difference": values[1] - values[0],
        "low": float(low),
        "high": float(high),
        "agreement": float((chosen[0] == chosen[1]).mean()) if classes else None,
        "mcnemar": mcnemar(*(each == labels for each in chosen)) if classes else None,
    }


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """P of McNemar's exact test that two models are right equally often.

    Args:
        first: which rows one of them answers right, bool [rows].
        second: the same of the other.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    different = only_first + only_second
    return float(binomtest(only_first, different).pvalue) if different else 1.0


def _classes(
    metric: str, base: np.ndarray, own: np.ndarray, labels: np.ndarray, seed: int
) -> np.ndarray:
    """Resampled differences; rows with one label and the same two answers are alike."""
    triples = np.stack([labels, base.argmax(1), own.argmax(1)], axis=1)
    cells, counts = np.unique(triples, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), size=ROUNDS)
    classes = base.shape[1]
    first, second = (
        classification_metric(metric, cells[:, [0, column]], drawn.astype(float), classes)
        for column in (1, 2)
    )
    return second - first


def _rows(
    metric: str, base: np.ndarray, own: np.ndarray, labels: np.ndarray, seed: int
) -> np.ndarray:
    base, own = (each.astype(float).reshape(len(labels), -1)[:, 0] for each in (base, own))
    found = [
        row_metric(metric, own, labels, weights) - row_metric(metric, base, labels, weights)
        for weights in resampled_rows(len(labels), np.random.default_rng(seed), ROUNDS)
    ]
    return np.concatenate(found)


def disagreements(base: np.ndarray, own: np.ndarray) -> list[int]:
    """Numbers of the rows whose predicted class differs.

    Args:
        base: logits [rows, classes].
        own: the other model's.
    """
    return np.flatnonzero(base.argmax(1) != own.argmax(1)).tolist()
