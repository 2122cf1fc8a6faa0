"""Correlations of many weighted samples at once, for the bootstrap."""

from __future__ import annotations

import math

import numpy as np


def correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation [samples] of [rows] or [samples, rows]; nan when constant."""
    total = weights.sum(axis=1, keepdims=True)
    mean_first = (weights * first).sum(axis=1, keepdims=True) / total
    mean_second = (weights * second).sum(axis=1, keepdims=True) / total
    first, second = first - mean_first, second - mean_second
    length_first = np.sqrt((weights * first**2).sum(axis=1))
    length_second = np.sqrt((weights * second**2).sum(axis=1))
    # Rounding leaves a constant column with a spread of about 1e-16 of its mean: that is zero.
    constant = (length_first <= 1e-13 * np.abs(mean_first[:, 0])) | (
        length_second <= 1e-13 * np.abs(mean_second[:, 0])
    )
    value = (weights * first * second).sum(axis=1) / (length_first * length_second)
    return np.where(constant, math.nan, np.clip(value, -1.0, 1.0))


def ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank of each row within each sample [samples, rows]; ties share their middle rank."""
    _, group = np.unique(values, return_inverse=True)  # [rows], in order of value
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    drawn = np.add.reduceat(weights[:, order], starts, axis=1)  # [samples, groups]
    middle = np.cumsum(drawn, axis=1) - (drawn - 1) / 2
    return middle[:, group]
