"""Rounding a float matrix to int8, symmetric, with one scale per row, and knowing it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from compressor.model.integers import QuantizedLinear

HIGHEST = np.float32(127)
MIDDLE = 128  # what turns int8 into uint8


def quantize_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a matrix to int8 with scale absmax / 127.

    Args:
        weight: float32 [out, in].

    Returns:
        values int8 [out, in] in [-127, 127], scale float32 [out, 1]. A row of zeros has scale 1.
    """
    return _round(weight, np.abs(weight).max(axis=1, keepdims=True))


def quantize_product(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round the matrix of a product so that no processor's int8 kernel can saturate.

    As `quantize_rows`, with absmax replaced by the largest sum of two neighbours of one sign where
    that is larger; after rounding it is 128 at most (see `cpu`). On MiniLM the steps grow by 1.3
    and the sentence vectors' error goes from 12.0 % to 12.1 %, nearly all of it from rounding the
    inputs; the product runs 1.3 times faster without VNNI, and is right on every machine.

    Args:
        weight: float32 [out, in].

    Returns:
        values int8 [out, in], scale float32 [out, 1].
    """
    even = weight if weight.shape[1] % 2 == 0 else np.pad(weight, ((0, 0), (0, 1)))
    limits = [
        (kept[:, 0::2] + kept[:, 1::2]).max(axis=1, keepdims=True)
        for kept in (np.maximum(even, 0), np.maximum(-even, 0))
    ]
    return _round(weight, np.maximum(*limits))


def _round(weight: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round to steps of limit / 127 [out, 1]."""
    limit = limit.astype(np.float32)
    scale = np.where(limit > 0, limit / HIGHEST, np.float32(1))
    # A row so small that its scale is subnormal would divide beyond 127.
    values = np.clip(np.rint(weight / scale), -HIGHEST, HIGHEST)
    return values.astype(np.int8), scale


def names_by_content(weights: Mapping[str, QuantizedLinear]) -> dict[bytes, str]:
    """Names of a checkpoint's own integers by the `content_key` of the floats that they make.

    An exporter gives its own names, and transformers may give others than the checkpoint has.
    """
    found = {}
    for name, linear in weights.items():
        steps = linear.scale.repeat(linear.values.shape[1] // linear.scale.shape[1], axis=1)
        found[content_key(linear.values.astype(np.float32) * steps)] = name
    return found


def content_key(matrix: np.ndarray) -> bytes:
    """A hash of a float matrix's shape and values."""
    rows = np.ascontiguousarray(matrix, dtype=np.float32)
    # Adding zero turns -0.0 into 0.0: a product with scale gives either.
    return hashlib.blake2b(rows + np.float32(0), digest_size=16).digest() + bytes(
        str(rows.shape), "ascii"
    )
