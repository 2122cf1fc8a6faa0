"""Weights of a few bits, rounded column by column while later columns make up for the error.

E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh: GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers, 2022, arXiv 2210.17323. On sample rows, without training; X
holds a map's inputs at real tokens.

    H = X^T X + damp * mean(diag X^T X) * I      H^-1 = U^T U, U upper triangular
    for the columns j from left to right
        q = s clamp(round(w_j / s))      e = (w_j - q) / U_jj      w_k -= e U_jk for all k > j

With B bits s = max|w| / (2^B - 1) * 2 over a row, or over `group_size` inputs of a row, and the
values go from -2^(B-1) to 2^(B-1) - 1, as compressed-tensors has it. A group's s is found when the
columns before it have been made up for. `act_order` takes the columns with the largest inputs
first; every group's s is then found beforehand, so that groups stay neighbours on disk.
What is exactly zero stays zero.
`--no-compensate` rounds to nearest and needs no rows. Maps that share an input share H; a layer is
quantized on what the quantized layers before it give. Inputs, norms, pooler and head stay in float:
it is memory that is saved, and with `export` the time to read it. Large embedding tables have 8
bits, see `dynamic`; the paper leaves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch
from compressor.methods.input_ranges import SMALLEST_SCALE
from compressor.methods.layerwise import change_layer_by_layer, inverse_factor
from compressor.methods.option import option
from compressor.methods.transforms.dynamic import (
    EMBEDDINGS_HELP,
    parts_to_quantize,
    round_tables,
)
from compressor.model.calibration import rows_in, sample_of
from compressor.model.quantized import attach_weights, float_linears, on_grid, spread

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.model.load import Loaded
    from compressor.model.quantized import Rows

VERBS = ("quantize",)
BLOCK = 128  # columns between two updates of all that follow


@dataclass(frozen=True)
class Options:
    """How many bits, how many scales, and how errors are made up for."""

    bits: int = option(4, "bits of a weight", low=2, high=8)
    group_size: int = option(
        128, "neighbouring inputs that share a scale; 0 for one scale a row", low=0
    )
    compensate: bool = option(True, "make up for rounding errors (GPTQ)")
    act_order: bool = option(False, "round the columns with the largest inputs first")
    samples: int = option(128, "number of rows to calibrate on", low=1, source="the paper")
    damp: float = option(
        0.01,
        "added to the diagonal of the inputs' products, as a share of its mean",
        low=1e-6,
        source="the paper",
    )
    exclude: str = option(
        "", "comma-separated parts of module names to keep in float, besides pooler and head"
    )
    embeddings: str = option("int8", EMBEDDINGS_HELP, choices=("int8", "fp32"))

    def __post_init__(self) -> None:
        idle = (self.act_order, self.samples, self.damp) != (False, 128, 0.01)
        if not self.compensate and idle:
            raise UsageError(
                "--act-order, --samples and --damp are about making up for errors, and "
                "--no-compensate makes up for none",
                where="--no-compensate",
            )


def scales_of(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """The step of every group of inputs, [out, groups].

    Args:
        weight: [out, in].
        bits: of a value.
        group: inputs of a group, which divide the inputs.
    """
    largest = weight.unflatten(1, (-1, group)).abs().amax(2)  # [out, groups]
    return (2 * largest / (2**bits - 1)).clamp(min=SMALLEST_SCALE)


def rounded(weight: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Values of the grid, of the shape of `weight`."""
    return (weight / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def quantize_matrix(
    weight: torch.Tensor, products: torch.Tensor, options: Options
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [out, in] and scales [out, groups] of one matrix.

    Args:
        weight: W, float64 [out, in].
        products: X^T X, float64 [in, in].
        options: bits, groups, order and damping.
    """
    import torch

    inputs = weight.shape[1]
    group = options.group_size or inputs
    order = torch.arange(inputs, device=weight.device)
    if options.act_order:
        order = products.diagonal().argsort(descending=True, stable=True)
    upper = inverse_factor(products[order][:, order], options.damp)
    scale = scales_of(weight, options.bits, group)
    moved = weight[:, order]
    zeros = moved == 0  # a pruned weight takes no other's error
    values = torch.empty_like(weight)
    block = group if options.group_size and not options.act_order else BLOCK
    for start in range(0, inputs, block):
        columns = slice(start, min(start + block, inputs))
        part = moved[:, columns]
        if options.group_size and not options.act_order:
            scale[:, start // group] = scales_of(part, options.bits, group)[:, 0]
        steps = spread(scale, inputs)[:, order[columns]]
        values[:, columns], errors = round_block(
            part, upper[columns, columns], steps, zeros[:, columns], options.bits
        )
        moved[:, columns.stop :] -= errors @ upper[columns, columns.stop :]
    back = torch.empty_like(values)
    back[:, order] = values
    return back, scale


def round_block(
    block: torch.Tensor,
    factor: torch.Tensor,
    steps: torch.Tensor,
    zeros: torch.Tensor,
    bits: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round the columns of a block from left to right; `block` is used up.

    Args:
        block: [out, columns].
        factor: the block's part of U, [columns, columns].
        steps: the step of each weight, [out, columns].
        zeros: the weights that stay 0, bool [out, columns].
        bits: of a value.

    Returns:
        the values, and the errors that the columns behind the block have to make up for.
    """
    import torch

    values, errors = torch.empty_like(block), torch.empty_like(block)
    for column in range(block.shape[1]):
        weight, step = block[:, column], steps[:, column]
        values[:, column] = rounded(weight, step, bits).masked_fill(zeros[:, column], 0.0)
        errors[:, column] = (weight - values[:, column] * step) / factor[column, column]
        block[:, column:] -= errors[:, column].outer(factor[column, column:])
    return values, errors


def refuse_misfit(modules: dict[str, nn.Module], group: int) -> None:
    """Refuse a group size that does not divide the inputs of a map, before any work.

    Raises:
        InputError: it names the first one.
    """
    for name, module in modules.items():
        if group and module.weight.shape[1] % group:
            raise InputError(
                f"{name} has {module.weight.shape[1]} inputs, which are no whole groups of {group}",
                hint="--group-size with a divisor, or 0 for one scale a row",
                where="--group-size",
            )


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return options.compensate


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Quantize in place; the facts hold the weights' error, and that of the outputs on the rows.

    Raises:
        InputError: no rows, a model or a matrix that does not fit, or `exclude` names nothing.
    """
    model = loaded.model
    modules, tables = parts_to_quantize(model, options.exclude, options.embeddings)
    refuse_misfit(modules, options.group_size)
    rows: dict[str, Rows] = {}
    facts = round_tables(model, tables)
    before = {name: module.weight.detach().clone() for name, module in modules.items()}
    if options.compensate:
        sample = sample_of(model, batches, options.samples, instead="--no-compensate")

        def change(
            names: Sequence[str], weights: list[torch.Tensor], products: torch.Tensor
        ) -> list[torch.Tensor]:
            for name, weight in zip(names, weights, strict=True):
                values, scale = quantize_matrix(weight, products, options)
                rows[name] = values.float(), scale.float()
            return [on_grid(*rows[name]) for name in names]

        facts["output_error"] = change_layer_by_layer(model, modules, sample, change)
        facts["calibration_rows"] = rows_in(sample)
    else:
        for name, weight in before.items():
            scale = scales_of(weight, options.bits, options.group_size or weight.shape[1])
            rows[name] = rounded(weight, spread(scale, weight.shape[1]), options.bits), scale
    error = sum(float((before[n] - on_grid(*rows[n])).double().square().sum()) for n in rows)
    power = sum(float(before[n].double().square().sum()) for n in rows)
    attach_weights(model, rows, options.bits, options.group_size)
    return {
        "linears_quantized": len(rows),
        "linears_float": float_linears(model),
        "weight_error": error / power if power else 0.0,
        **facts,
    }
