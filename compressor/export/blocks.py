"""Weights of a few bits as ONNX Runtime's MatMulNBits reads them.

A row's inputs are cut into blocks of a power of two, each with one scale; the values of a block are
unsigned, with 2^(bits - 1) standing for 0, and lie side by side, the first in the lowest bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from compressor.errors import InputError
from compressor.model.integers import QuantizedLinear

SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128


class Blocks(NamedTuple):
    """One matrix.

    Attributes:
        values: uint8 [out, blocks, bytes of a block].
        scale: float32 [out, blocks].
        bits: of a value, 4 or 8.
        size: inputs of a block.
    """

    values: np.ndarray
    scale: np.ndarray
    bits: int
    size: int


def pack_blocks(linear: QuantizedLinear) -> Blocks:
    """A matrix whose weights alone are integers, for MatMulNBits.

    Values of other widths are stored in the next wider one that there is.

    Raises:
        InputError: its groups hold no whole blocks.
    """
    rows, inputs = linear.values.shape
    groups = linear.scale.shape[1]
    group = inputs // groups
    size = min(group & -group, LARGEST_BLOCK)  # the largest power of two that divides a group
    if groups == 1:
        size = LARGEST_BLOCK  # the last block may be half empty
    elif size < SMALLEST_BLOCK:
        raise InputError(
            f"a group of {group} inputs holds no whole blocks of {SMALLEST_BLOCK} or more, which "
            "ONNX Runtime's kernel needs",
            hint="quantize --method gptq with --group-size 0, or with 16, 32, 64 or 128 where that "
            "divides the inputs",
        )
    bits = 4 if linear.bits <= 4 else 8
    blocks = -(-inputs // size)
    unsigned = (linear.values.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    unsigned = np.pad(
        unsigned, ((0, 0), (0, blocks * size - inputs)), constant_values=2 ** (bits - 1)
    )
    values = unsigned.reshape(rows, blocks, size)
    if bits == 4:
        values = values[..., ::2] | values[..., 1::2] << 4
    return Blocks(values, linear.scale.repeat(blocks // groups, axis=1), bits, size)
