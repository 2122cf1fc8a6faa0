"""Weights of a few bits as ONNX Runtime's MatMulNBits reads them.

A row's inputs are cut into blocks of a power of two, each with one scale; the values of a block are
unsigned, with 2^(bits - 1) standing for 0, and lie side by side, the first in the lowest bits.

Values of 4 bits are multiplied with the inputs as they are. For values of 8 bits ONNX Runtime would
make floats of the whole matrix in every call: 93 ms for one token and the 60 widest matrices of
SmolLM2-135M, where the floats themselves take 34 ms (one core). It is asked to round the inputs of
each block to int8 as well, with a scale of their own; that takes 9 ms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from compressor.errors import InputError
from compressor.model.integers import QuantizedLinear

SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128
INT8_INPUTS = 4  # the node's accuracy_level


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


def block_size(inputs: int, groups: int) -> int:
    """How many inputs a block has.

    Args:
        inputs: of the matrix.
        groups: how many scales a row has.

    Raises:
        InputError: the groups hold no whole blocks.
    """
    group = inputs // groups
    size = min(group & -group, LARGEST_BLOCK)  # the largest power of two that divides a group
    if groups == 1 and size <= SMALLEST_BLOCK:
        return LARGEST_BLOCK  # the last block may be half empty
    if size < SMALLEST_BLOCK:
        raise InputError(
            f"a group of {group} inputs holds no whole blocks of {SMALLEST_BLOCK} or more, which "
            "ONNX Runtime's kernel needs",
            hint="quantize --method gptq with --group-size 0, or with 16, 32, 64 or 128 where that "
            "divides the inputs",
        )
    return size


def bits_stored(bits: int) -> int:
    """The width, 4 or 8, in which values of `bits` bits are stored."""
    return 4 if bits <= 4 else 8


def pack_blocks(linear: QuantizedLinear) -> Blocks:
    """A matrix whose weights alone are integers, for MatMulNBits.

    Raises:
        InputError: its groups hold no whole blocks.
    """
    rows, inputs = linear.values.shape
    groups = linear.scale.shape[1]
    size, bits = block_size(inputs, groups), bits_stored(linear.bits)
    blocks = -(-inputs // size)
    unsigned = (linear.values.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    unsigned = np.pad(
        unsigned, ((0, 0), (0, blocks * size - inputs)), constant_values=2 ** (bits - 1)
    )
    values = unsigned.reshape(rows, blocks, size)
    if bits == 4:
        values = values[..., ::2] | values[..., 1::2] << 4
    return Blocks(values, linear.scale.repeat(blocks // groups, axis=1), bits, size)
