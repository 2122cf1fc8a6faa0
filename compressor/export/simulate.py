"""PyTorch doing what the int8 graph does: the error that rounding alone must cause.

An int8 graph is allowed to differ from the float model, but only by rounding. How much that is
depends on the model, so it is measured: the same weights rounded the same way, and each layer's
input rounded to the grid that the graph uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from compressor.export.embeddings import SMALLEST_TABLE_BYTES
from compressor.export.rounding import quantize_product, quantize_rows
from compressor.model.integers import Grid, QuantizedLinear

LOWEST, HIGHEST = -128, 127


def round_dynamic(inputs: torch.Tensor) -> torch.Tensor:
    """What DynamicQuantizeLinear keeps of `inputs`: uint8, one scale and zero point per tensor.

    The range is widened to hold 0; scale = (max - min) / 255.
    """
    low, high = inputs.min().clamp(max=0), inputs.max().clamp(min=0)
    scale = (high - low) / 255
    if scale == 0:
        return inputs
    zero = (-low / scale).round()
    return (((inputs / scale).round() + zero).clamp(0, 255) - zero) * scale


def round_static(inputs: torch.Tensor, grid: Grid) -> torch.Tensor:
    """What a fixed int8 grid of (scale, zero point) keeps of `inputs`."""
    scale, zero = grid
    return (((inputs / scale).round() + zero).clamp(LOWEST, HIGHEST) - zero) * scale


@contextlib.contextmanager
def simulated_int8(
    model: torch.nn.Module,
    weights: Mapping[str, QuantizedLinear] | None,
    *,
    embeddings: bool,
) -> Iterator[None]:
    """Make `model` compute as the int8 graph does, inside the block.

    Args:
        model: the float model; its weights are not touched.
        weights: the checkpoint's integers by module name, which the weights equal already; None
            when the export rounds every matrix itself.
        embeddings: whether large embedding tables are int8.
    """
    from transformers.pytorch_utils import Conv1D

    changed: list[torch.nn.Module] = []
    for name, module in model.named_modules():
        forward: Callable | None = None
        if isinstance(module, torch.nn.Linear | Conv1D):
            activation = "dynamic" if weights is None else _activation(weights, name)
            if activation is not None:
                forward = partial(_product, module, activation, weights is None)
        elif embeddings and _is_large_table(module):
            forward = partial(_lookup, module.forward)
        if forward is not None:
            module.forward = forward
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # the class's own shows again


def _activation(
    weights: Mapping[str, QuantizedLinear], name: str
) -> Literal["dynamic"] | Grid | None:
    kind = weights[name].activation if name in weights else "float"
    return None if kind == "float" else kind


def _product(
    module: torch.nn.Module,
    activation: Literal["dynamic"] | Grid,
    round_weight: bool,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """The forward of a Linear or Conv1D with rounded inputs, and weights where asked."""
    rows = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T  # [out, in]
    if round_weight:
        rows = _rounded(rows, quantize_product)
    dynamic = activation == "dynamic"
    rounded = round_dynamic(inputs) if dynamic else round_static(inputs, activation)
    return F.linear(rounded, rows, module.bias)


def _is_large_table(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Embedding) and module.weight.nbytes > SMALLEST_TABLE_BYTES


def _lookup(forward: Callable[[torch.Tensor], torch.Tensor], indices: torch.Tensor) -> torch.Tensor:
    """The forward of an Embedding: its rows, each rounded with its own scale."""
    found = forward(indices)
    rows = found.reshape(-1, found.shape[-1])
    return _rounded(rows, quantize_rows).reshape(found.shape)


def _rounded(
    rows: torch.Tensor, rounding: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> torch.Tensor:
    values, scale = rounding(rows.detach().numpy())
    return torch.from_numpy(values * scale)
