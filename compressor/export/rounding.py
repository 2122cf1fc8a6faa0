"""Rounding a float matrix to int8, symmetric, with one scale per row."""

from __future__ import annotations

import numpy as np


def quantize_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a matrix to int8, symmetric, one scale per row (absmax / 127).

    Args:
        weight: float32 [out, in].

    Returns:
        values int8 [out, in] in [-127, 127], scale float32 [out, 1]. A row of zeros has scale 1.
    """
    absmax = np.abs(weight).max(axis=1, keepdims=True).astype(np.float32)
    scale = np.where(absmax > 0, absmax / np.float32(127), np.float32(1))
    # A row so small that its scale is subnormal would divide beyond 127.
    values = np.clip(np.rint(weight / scale), -127, 127)
    return values.astype(np.int8), scale
