"""How latency grows with batch and length, and how near it comes to what the machine can do.

A transformer's call has a fixed price, one for each token (the linear maps) and one for each pair
of tokens of a row (attention):

    t(b, n) = fixed + token * b n + pair * b n^2

The limit is the time of the same call's matrix products alone: plain float32 products of the shapes
of the layers' own matrices and of their attention's heads, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]

LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 4, 16)


def grid(longest: int) -> list[tuple[int, int]]:
    """The (batch, length) pairs that are measured for inputs of at most `longest` tokens.

    One length could not tell a token's price from a pair's, so short models have lengths of their
    own: the longest, its half and its quarter.
    """
    lengths = [length for length in LENGTHS if length <= longest]
    if len(lengths) < 2:
        lengths = sorted({-(-longest // part) for part in (4, 2, 1)})
    return [(batch, length) for batch in BATCHES for length in lengths]


def fit(rows: Sequence[Row]) -> dict[str, float]:
    """The three prices, none below zero, that come closest in relative terms.

    Args:
        rows: of `latency.measure_in_turns`, at three shapes or more.

    Returns:
        fixed_ms; token_ms, for each token; pair_ms, for each pair of tokens of a row; error, the
        largest relative distance between a median and its fit.
    """
    from scipy.optimize import nnls

    batch, length, times = (
        np.array([row[key] for row in rows], dtype=float) for key in ("batch", "length", "p50_ms")
    )
    terms = np.stack([np.ones_like(batch), batch * length, batch * length**2], axis=1)
    weighted = terms / times[:, None]  # each row's equation divided by its time
    scale = np.linalg.norm(weighted, axis=0)
    prices = nnls(weighted / scale, np.ones_like(times))[0] / scale
    error = np.abs(terms @ prices / times - 1).max()
    return dict(
        zip(("fixed_ms", "token_ms", "pair_ms", "error"), [*map(float, prices), float(error)],
            strict=True)
    )  # fmt: skip


def scaling_of(rows: Sequence[Row], products: Sequence[Row]) -> dict[str, Any]:
    """What the report says about a model's growth.

    Args:
        rows: the model's rows over the grid.
        products: those of its matrix products, of the same run and shapes.

    Returns:
        fit, and rows: batch, length, p50_ms, products_ms, share (of the limit: products / model).
    """
    pairs = zip(rows, products, strict=True)
    return {
        "fit": fit(rows),
        "rows": [
            {
                "batch": own["batch"],
                "length": own["length"],
                "p50_ms": own["p50_ms"],
                "products_ms": plain["p50_ms"],
                "share": plain["p50_ms"] / own["p50_ms"],
            }
            for own, plain in pairs
        ],
    }
