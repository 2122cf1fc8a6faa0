"""How much faster one model is than another, and how sure that is.

Candidates that are measured in turns meet the same bad moments, so their ratio is honest; but each
process has luck that lasts as long as it does (see `latency`), so the turns of one process, however
many, tell nothing of the next. Every model is therefore started several times, and the starts are
the sample: each gives one ratio of medians, their geometric mean is the speed-up, and Student's t
over their logarithms its interval. A bootstrap of so few starts would be too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def speedups(
    own: Sequence[Row], base: Sequence[Row]
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """What a model gains over the baseline, as a whole and at each shape that both have.

    Args:
        own: the model's rows of `latency.pooled`.
        base: the baseline's rows, of the same run, with as many starts.

    Returns:
        (whole, by shape): `speedup`, `low` and `high`, the 95 % interval, None of a single start;
        the whole is the geometric mean over the shapes, None without a common shape, and a shape's
        entry has its `batch` and `length`.
    """
    mine = {(row["batch"], row["length"]): row for row in own}
    shapes, logs = [], []
    for theirs in base:
        ours = mine.get((theirs["batch"], theirs["length"]))
        if ours is not None:
            shapes.append({"batch": ours["batch"], "length": ours["length"]})
            logs.append(_medians(theirs) - _medians(ours))
    if not shapes:
        return {"speedup": None, "low": None, "high": None}, []
    whole = _speedup(np.mean(logs, axis=0))
    return whole, [shape | _speedup(each) for shape, each in zip(shapes, logs, strict=True)]


def _medians(row: Row) -> np.ndarray:
    return np.log([np.median(calls) for calls in row["starts_ms"]])  # [starts]


def _speedup(logs: np.ndarray) -> dict[str, float | None]:
    from scipy.special import stdtrit

    middle = logs.mean()
    if len(logs) == 1:
        return {"speedup": float(np.exp(middle)), "low": None, "high": None}
    half = stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, speedup, high = np.exp([middle - half, middle, middle + half])
    return {"speedup": float(speedup), "low": float(low), "high": float(high)}
