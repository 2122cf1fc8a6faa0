"""Post-training int8 weights with activations rounded token by token at run time.

B. Jacob and others: Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2018, arXiv 1712.05877, for the affine map; the per-token
activations are those of SmoothQuant-O1 (G. Xiao and others, 2023, arXiv 2211.10438), without its
smoothing.

    weights, per output channel    s_w = max|w| / 127.5     q = clamp(round(w / s_w), -128, 127)
    inputs, per token              s_x = max|x| / 127.5     y = s_x s_w sum q_x q_w + b

The scale follows the compressed-tensors convention (127.5 and the full range), not the 127 of
SmoothQuant. Rounding is to nearest; no data is needed. Norms, biases, pooler and head stay in
float. Ours: with `portable`, max|w| becomes the largest sum of two neighbouring inputs' weights of
one sign, so that no processor overflows; on bell-shaped weights it is a fifth larger. Ours as well:
tables of words and positions of more than 64 kB are rounded with a scale for each row
(`--embeddings`), unless a head multiplies by them, too.
`smooth` is in `methods/smooth.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch
from compressor.methods.input_ranges import HALF_RANGE, HIGHEST, LOWEST, SMALLEST_SCALE
from compressor.methods.option import option
from compressor.methods.smooth import smooth
from compressor.model.calibration import sample_of
from compressor.model.layers import encoder_linears, without
from compressor.model.quantized import attach, attach_tables, float_linears, is_quantized
from compressor.model.tables import large_tables

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from compressor.model.load import Loaded
    from compressor.model.quantized import Rows

VERBS = ("quantize",)

PORTABLE_HELP = (
    "widen the scales of rows whose products could overflow 16 bits, so that every processor "
    "multiplies them exactly by its fastest int8 instruction"
)


GRANULARITY_HELP = "one scale for each output (channel) or for the whole matrix (tensor)"
EMBEDDINGS_HELP = "number format of the large embedding tables that no head multiplies by"
SMOOTH_HELP = (
    "move outliers of the inputs into the weights first (SmoothQuant), by this power, usually 0.5; "
    "0 does not"
)


@dataclass(frozen=True)
class Options:
    """What stays in float, and what the integers must fit."""

    exclude: str = option(
        "", "comma-separated parts of module names to keep in float, besides pooler and head"
    )
    portable: bool = option(True, PORTABLE_HELP)
    granularity: str = option("channel", GRANULARITY_HELP, choices=("channel", "tensor"))
    embeddings: str = option("int8", EMBEDDINGS_HELP, choices=("int8", "fp32"))
    smooth: float = option(0.0, SMOOTH_HELP, low=0.0, high=1.0)
    samples: int = option(256, "with --smooth: number of rows to look at", low=1)

    def __post_init__(self) -> None:
        if self.samples != 256 and not self.smooth:
            raise UsageError("--samples needs --smooth here", where="--samples")


def largest_pair(weight: torch.Tensor) -> torch.Tensor:
    """The largest sum of two neighbouring inputs' weights of one sign, per row [out, 1].

    Args:
        weight: float [out, in]; inputs 0 and 1, 2 and 3, ... are neighbours.
    """
    from torch.nn import functional as F

    padded = F.pad(weight, (0, weight.shape[1] % 2)).unflatten(1, (-1, 2))  # [out, in/2, 2]
    above, below = padded.clamp(min=0).sum(-1), (-padded).clamp(min=0).sum(-1)
    return above.maximum(below).amax(dim=1, keepdim=True)


def quantize_rows(
    weight: torch.Tensor, *, portable: bool = False, granularity: str = "channel"
) -> Rows:
    """Round a weight matrix to nearest, symmetric, one scale per output channel or for all.

    Args:
        weight: float [out, in].
        portable: widen a row's scale until no pair of neighbours can overflow 16 bits.
        granularity: "channel", or "tensor" for one scale of the whole matrix.

    Returns:
        values int8 [out, in] and scale float32 [out, 1]; |weight - values * scale| <= scale / 2.
    """
    import torch

    weight = weight.detach().float()
    # Processors without VNNI or its like add two neighbouring products in 16 bits, and inputs go
    # up to 255: 255 (q_0 + q_1) <= 32,767 holds up to 128, which is 127.5 and two roundings.
    largest = largest_pair(weight) if portable else weight.abs().amax(dim=1, keepdim=True)
    if granularity == "tensor":
        largest = largest.max().expand_as(largest)
    scale = (largest / HALF_RANGE).clamp(min=SMALLEST_SCALE)  # [out, 1]
    values = (weight / scale).round().clamp(LOWEST, HIGHEST)
    return values.to(torch.int8), scale


def quantize_linears(
    modules: Mapping[str, torch.nn.Module], *, portable: bool, granularity: str = "channel"
) -> tuple[dict[str, Rows], float]:
    """`quantize_rows` of every module.

    Returns:
        the rows by module name, and sum (W - W_int8)^2 / sum W^2 over all of them.
    """
    rows, error, power = {}, 0.0, 0.0
    for name, module in modules.items():
        rows[name] = values, scale = quantize_rows(
            module.weight, portable=portable, granularity=granularity
        )
        weight = module.weight.detach().double()
        error += float((weight - values * scale).square().sum())
        power += float(weight.square().sum())
    return rows, error / power if power else 0.0


def parts_to_quantize(
    model: PreTrainedModel, exclude: str, embeddings: str
) -> tuple[dict[str, nn.Linear], dict[str, nn.Embedding]]:
    """The linear layers inside the transformer layers, and large tables, less those excluded.

    Args:
        model: a float model.
        exclude: patterns of names.
        embeddings: "fp32" for no tables.

    Raises:
        InputError: the model is quantized already, has no linear layer, or keeps them in a form
            that the checkpoint format cannot hold; or `exclude` names nothing.
    """
    from torch import nn

    if is_quantized(model):
        raise InputError("the model is int8 already", hint="start from the checkpoint before it")
    family = model.config.model_type
    linears = encoder_linears(model)
    other = {type(m).__name__ for m in linears.values() if not isinstance(m, nn.Linear)}
    if other:
        raise InputError(
            f"a {family} model keeps its weights in {', '.join(sorted(other))} modules, and the "
            "compressed-tensors format holds nn.Linear only",
            hint="compressor export MODEL makes an int8 ONNX model of it directly",
        )
    if not linears:
        raise InputError(f"a {family} model has no linear layer to quantize")
    chosen = without({**linears, **(large_tables(model) if embeddings == "int8" else {})}, exclude)
    tables = {name: module for name, module in chosen.items() if name not in linears}
    return {name: module for name, module in chosen.items() if name in linears}, tables


def linears_to_quantize(model: PreTrainedModel, exclude: str) -> dict[str, nn.Linear]:
    """The linear layers alone, see `parts_to_quantize`."""
    return parts_to_quantize(model, exclude, "fp32")[0]


def round_tables(model: PreTrainedModel, tables: Mapping[str, nn.Embedding]) -> dict[str, Any]:
    """Round embedding tables in place, one scale a row; says which."""
    attach_tables(model, {name: quantize_rows(table.weight) for name, table in tables.items()})
    return {"tables_quantized": list(tables)}


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return options.smooth > 0


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Quantize in place; the facts hold the relative squared error of the weights.

    Raises:
        InputError: the model cannot be quantized, or `exclude` names nothing.
    """
    modules, tables = parts_to_quantize(loaded.model, options.exclude, options.embeddings)
    facts = round_tables(loaded.model, tables)
    if options.smooth:
        sample = sample_of(loaded.model, batches, options.samples, instead="no --smooth")
        facts["smoothed"] = smooth(loaded.model, sample, options.smooth)
    rows, error = quantize_linears(
        modules, portable=options.portable, granularity=options.granularity
    )
    attach(loaded.model, rows)
    return {
        "linears_quantized": len(rows),
        "linears_float": float_linears(loaded.model),
        "weight_error": error,
        **facts,
    }
