"""Post-training int8 weights with one fixed input range per linear layer, found on sample rows.

B. Jacob and others: Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2018, arXiv 1712.05877.

    q_x = clamp(round(x / s_x) + z_x, -128, 127)     y = s_x s_w sum (q_x - z_x) q_w + b
    asymmetric   s_x = (high - low) / 255     z_x = round(-128 - low / s_x)
    symmetric    s_x = max(-low, high) / 127.5     z_x = 0

How low and high are found is in `methods/input_ranges.py`. Weights are those of `dynamic`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.methods.contract import Batch
from compressor.methods.input_ranges import CALIBRATIONS, activation_grid, input_ranges
from compressor.methods.option import option
from compressor.methods.smooth import smooth
from compressor.methods.transforms.dynamic import (
    EMBEDDINGS_HELP,
    GRANULARITY_HELP,
    PORTABLE_HELP,
    SMOOTH_HELP,
    parts_to_quantize,
    quantize_linears,
    round_tables,
)
from compressor.model.calibration import rows_in, sample_of
from compressor.model.quantized import attach, float_linears

if TYPE_CHECKING:
    from compressor.model.load import Loaded

VERBS = ("quantize",)


@dataclass(frozen=True)
class Options:
    """How the input ranges are found, and what stays in float."""

    calibration: str = option("minmax", "how the input ranges are found", choices=CALIBRATIONS)
    percentile: float = option(
        99.999,
        "with that calibration: share of the values inside the range, in per cent",
        low=50.0,
        high=100.0,
    )
    samples: int = option(256, "number of rows to calibrate on", low=1)
    symmetric: bool = option(False, "center the input ranges on 0 (wastes half of them after GELU)")
    exclude: str = option(
        "", "comma-separated parts of module names to keep in float, besides pooler and head"
    )
    portable: bool = option(True, PORTABLE_HELP)
    granularity: str = option("channel", GRANULARITY_HELP, choices=("channel", "tensor"))
    embeddings: str = option("int8", EMBEDDINGS_HELP, choices=("int8", "fp32"))
    smooth: float = option(0.0, SMOOTH_HELP, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        if self.percentile != 99.999 and self.calibration != "percentile":
            raise UsageError("--percentile needs --calibration percentile", where="--percentile")


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return True


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Quantize in place; the facts hold the weights' error and the rows used.

    Raises:
        InputError: no rows, a model that cannot be quantized, or `exclude` names nothing.
    """
    model = loaded.model
    sample = sample_of(model, batches, options.samples, instead="--method dynamic")
    modules, tables = parts_to_quantize(model, options.exclude, options.embeddings)
    facts = round_tables(model, tables)
    if options.smooth:
        facts["smoothed"] = smooth(model, sample, options.smooth)
    ranges = input_ranges(
        model,
        modules,
        sample,
        options.calibration,
        percentile=options.percentile,
        symmetric=options.symmetric,
    )
    grids = {
        name: activation_grid(low, high, symmetric=options.symmetric)
        for name, (low, high) in ranges.items()
    }
    rows, error = quantize_linears(
        modules, portable=options.portable, granularity=options.granularity
    )
    attach(model, rows, grids, symmetric=options.symmetric)
    return {
        "linears_quantized": len(rows),
        "linears_float": float_linears(model),
        "weight_error": error,
        "calibration_rows": rows_in(sample),
        **facts,
    }
