"""How much faster one model is than another, and how sure that is.

A speed-up is the ratio of two medians. Its interval comes from the turns: candidates that are
measured in turns meet the same bad moments, so whole turns are drawn together, and neighbours with
them, for a machine that is slow in one turn is slow in the next (moving blocks: H. Kuensch: The
Jackknife and the Bootstrap for General Stationary Observations, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]

RESAMPLES = 2000
BLOCKS = 6  # into which the turns are cut at least


def speedups(
    own: Sequence[Row], base: Sequence[Row], *, seed: int
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """What a model gains over the baseline, as a whole and at each shape that both have.

    Args:
        own: the model's rows of `latency.measure_in_turns`; without `turns_ms` there are no
            intervals.
        base: the baseline's rows, of the same run.
        seed: of the bootstrap.

    Returns:
        (whole, by shape): `speedup`, `low` and `high`, the 95 % interval; the whole is the
        geometric mean over the shapes, None without a common shape, and a shape's entry has its
        `batch` and `length`.
    """
    mine = {(row["batch"], row["length"]): row for row in own if row["p50_ms"]}
    pairs = [(row, mine[shape]) for row in base if (shape := (row["batch"], row["length"])) in mine]
    by_shape, drawn = [], []
    for number, (theirs, ours) in enumerate(pairs):
        ratio = theirs["p50_ms"] / ours["p50_ms"]
        logs = _resampled(theirs, ours, np.random.default_rng([seed, number]))
        by_shape.append(
            {"batch": ours["batch"], "length": ours["length"], "speedup": ratio, **_interval(logs)}
        )
        drawn.append(logs)
    if not by_shape:
        return {"speedup": None, "low": None, "high": None}, []
    mean = math.exp(sum(math.log(row["speedup"]) for row in by_shape) / len(by_shape))
    known = [logs for logs in drawn if logs is not None]
    together = np.mean(known, axis=0) if len(known) == len(drawn) else None
    return {"speedup": mean, **_interval(together)}, by_shape


def _resampled(theirs: Row, ours: Row, draw: np.random.Generator) -> np.ndarray | None:
    """Logarithms of the ratio of medians, one a resample; None without turns of both."""
    if not theirs.get("turns_ms") or not ours.get("turns_ms"):
        return None
    turns = min(len(theirs["turns_ms"]), len(ours["turns_ms"]))
    block = max(1, turns // BLOCKS)
    starts = draw.integers(0, turns, (RESAMPLES, -(-turns // block)))
    picked = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :turns] % turns
    medians = [
        np.median(np.array(row["turns_ms"][:turns])[picked].reshape(RESAMPLES, -1), axis=1)
        for row in (theirs, ours)
    ]
    return np.log(medians[0]) - np.log(medians[1])  # [resamples]


def _interval(logs: np.ndarray | None) -> dict[str, float | None]:
    if logs is None:
        return {"low": None, "high": None}
    low, high = np.exp(np.percentile(logs, [2.5, 97.5]))
    return {"low": float(low), "high": float(high)}
