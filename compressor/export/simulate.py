"""PyTorch doing what the int8 graph does: the error that rounding alone must cause.

An int8 graph is allowed to differ from the float model, but only by rounding. How much that is
depends on the model, so it is measured: the same weights rounded the same way, and each layer's
input rounded to the grid that the graph uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from compressor.export.blocks import bits_stored, block_size
from compressor.export.rounding import (
    HIGHEST,
    content_key,
    names_by_content,
    quantize_product,
    quantize_rows,
)
from compressor.model.integers import Grid, QuantizedLinear
from compressor.model.tables import SMALLEST_TABLE_BYTES

LOWEST_INT8, HIGHEST_INT8 = -128, 127
Rounding = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


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
    return (((inputs / scale).round() + zero).clamp(LOWEST_INT8, HIGHEST_INT8) - zero) * scale


def round_blocks(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """What MatMulNBits keeps of `inputs` where its weights have 8 bits.

    Every `size` neighbours have a scale of their own, max|x| / 127.

    Args:
        inputs: [..., width].
        size: inputs of a block; the last one may be cut off.
    """
    width = inputs.shape[-1]
    blocks = F.pad(inputs, (0, -width % size)).unflatten(-1, (-1, size))
    scale = blocks.abs().amax(-1, keepdim=True) / float(HIGHEST)
    kept = (blocks / scale.clamp(min=torch.finfo(scale.dtype).tiny)).round() * scale
    return kept.flatten(-2)[..., :width]


@contextlib.contextmanager
def simulated_int8(
    model: torch.nn.Module,
    weights: Mapping[str, QuantizedLinear] | None,
    *,
    round_inputs: bool = True,
    embeddings: bool,
) -> Iterator[None]:
    """Make `model` compute as the int8 graph does, inside the block.

    Args:
        model: the float model; its weights are not touched.
        weights: the checkpoint's integers by name, which the weights equal already; None when the
            export rounds every matrix itself.
        round_inputs: without `weights`, see `quantize_graph`.
        embeddings: whether large embedding tables are int8; one in `weights` equals them already.
    """
    from transformers.pytorch_utils import Conv1D

    changed: list[torch.nn.Module] = []
    weights = None if weights is None else _by_module(model, weights)
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    tied = {id(linear.weight) for linear in linears}
    of_matrix = None if weights is not None else quantize_product if round_inputs else quantize_rows
    for name, module in model.named_modules():
        forward: Callable | None = None
        if isinstance(module, torch.nn.Linear | Conv1D):
            of_inputs = _of_inputs(module, name, weights, round_inputs)
            if of_inputs is not None:
                forward = partial(_product, module, of_inputs, of_matrix)
        elif embeddings and _is_large_table(module) and name not in (weights or ()):
            # What a head multiplies by as well has its integers, or stays float with it.
            of_rows = of_matrix if id(module.weight) in tied else quantize_rows
            if of_rows is not None:
                forward = partial(_lookup, module.forward, of_rows)
        if forward is not None:
            module.forward = forward
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # the class's own shows again


def _by_module(
    model: torch.nn.Module, weights: Mapping[str, QuantizedLinear]
) -> Mapping[str, QuantizedLinear]:
    """A checkpoint's integers by the names that the model's modules have.

    transformers may give others than the checkpoint has, as it does for ViT.
    """
    modules = dict(model.named_modules())
    if all(name in modules for name in weights):
        return weights
    names, found = names_by_content(weights), {}
    for name, module in modules.items():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            known = names.get(content_key(module.weight.detach().numpy()))
            if known is not None:
                found[name] = weights[known]
    return found


def _of_inputs(
    module: torch.nn.Module,
    name: str,
    weights: Mapping[str, QuantizedLinear] | None,
    round_inputs: bool,
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """How the inputs of a Linear or Conv1D are rounded; None where they and it stay float."""
    if weights is None:
        activation, bits, groups = "dynamic" if round_inputs else "float", 8, 1
    elif name in weights:
        linear = weights[name]
        activation, bits, groups = linear.activation, linear.bits, linear.scale.shape[1]
    else:
        return None
    if activation == "dynamic":
        return round_dynamic
    if activation != "float":
        return partial(round_static, grid=activation)
    if bits_stored(bits) == 4:
        return None
    width = module.weight.shape[1 if isinstance(module, torch.nn.Linear) else 0]
    return partial(round_blocks, size=block_size(width, groups))


def _product(
    module: torch.nn.Module,
    of_inputs: Callable[[torch.Tensor], torch.Tensor],
    of_matrix: Rounding | None,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """The forward of a Linear or Conv1D with rounded inputs, and weights where asked."""
    rows = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T  # [out, in]
    if of_matrix is not None:
        rows = _rounded(rows, of_matrix)
    return F.linear(of_inputs(inputs), rows, module.bias)


def _is_large_table(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Embedding) and module.weight.nbytes > SMALLEST_TABLE_BYTES


def _lookup(
    forward: Callable[[torch.Tensor], torch.Tensor], rounding: Rounding, indices: torch.Tensor
) -> torch.Tensor:
    """The forward of an Embedding: its rows, each rounded with its own scale."""
    found = forward(indices)
    rows = found.reshape(-1, found.shape[-1])
    return _rounded(rows, rounding).reshape(found.shape)


def _rounded(rows: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    values, scale = rounding(rows.detach().numpy())
    return torch.from_numpy(values * scale)
