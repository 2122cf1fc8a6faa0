"""Which range of inputs the 256 values of an int8 grid are spent on.

    minmax      the smallest and the largest value seen
    moving      the same of each batch, low <- low + 0.01 (min - low), as training observers do
    percentile  what holds that share of the values (asymmetric: half of the rest is cut on each
                side); H. Wu and others, 2020, arXiv 2004.09602
    mse         the cut of the range on either side, in 32nds, that leaves the smallest squared
                error of the rounded values
    entropy     the magnitude T where the values' distribution, cut at T with what is above added
                to its last bin, differs least from the same in 128 levels, by KL(p || q); S.
                Migacz, 8-bit Inference with TensorRT, 2017

The last three count values in 2,048 bins. Padding never enters a range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compressor.model.calibration import refuse_infinite, refuse_unreached, watch_inputs

if TYPE_CHECKING:
    import torch

    from compressor.model.integers import Grid

CALIBRATIONS = ("minmax", "moving", "percentile", "mse", "entropy")
LOWEST, HIGHEST = -128, 127
HALF_RANGE = 127.5
# The floor of compressed-tensors for float32. A smaller one would make the product of two scales
# vanish, and a runtime's int32 bias (bias / (input scale * weight scale)) overflow.
SMALLEST_SCALE = 2.0**-23
BINS, LEVELS, STRIDE, CUTS = 2048, 128, 8, 32
MOVING_SHARE = 0.01  # as torch's observers have it

Range = tuple[float, float]


def activation_grid(low: float, high: float, *, symmetric: bool) -> Grid:
    """Scale and zero point of an int8 grid over [low, high], widened to hold 0.

    x is stored as q = clamp(round(x / scale) + zero point, -128, 127).
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return max(-low, high, SMALLEST_SCALE * HALF_RANGE) / HALF_RANGE, 0
    scale = max((high - low) / (HIGHEST - LOWEST), SMALLEST_SCALE)
    return scale, max(LOWEST, min(HIGHEST, round(LOWEST - low / scale)))


def percentile_range(
    counts: torch.Tensor, low: float, high: float, percentile: float, *, symmetric: bool
) -> Range:
    """The edges of the bins between which `percentile` per cent of the values lie.

    Args:
        counts: values in each of the equal bins over [low, high], [bins].
        low: left edge of the first bin.
        high: right edge of the last bin.
        percentile: in (0, 100]; 100 gives [low, high].
        symmetric: the values are magnitudes: cut above only, and mirror the result.
    """
    import torch

    below = counts.double().cumsum(0)
    total = float(below[-1])
    cut = total * (100.0 - percentile) / 100.0 / (1 if symmetric else 2)
    width = (high - low) / len(counts)
    last = int(torch.searchsorted(below, total - cut))  # first bin with enough below its end
    top = low + width * (min(last, len(counts) - 1) + 1)
    if symmetric:
        return -top, top
    first = int(torch.searchsorted(below, cut, right=True))
    return low + width * min(first, len(counts) - 1), top


def mse_range(counts: torch.Tensor, low: float, high: float, *, symmetric: bool) -> Range:
    """The range whose grid leaves the smallest squared error of the bins' middles.

    Args:
        counts: values in each of the equal bins over [low, high], [bins].
        low: left edge of the first bin.
        high: right edge of the last bin.
        symmetric: the values are magnitudes: cut above only, and mirror the result.
    """
    import torch

    middles = low + (high - low) / len(counts) * (torch.arange(len(counts)) + 0.5)
    middles, weights = middles.double(), counts.double()
    shares = torch.arange(1, CUTS + 1, dtype=torch.float64) / CUTS
    tops = (shares * max(high, 0.0)).tolist()
    bottoms = [0.0] if symmetric or low >= 0 else (shares * low).tolist()
    best = None
    for top in tops:
        for bottom in bottoms:
            scale, zero = activation_grid(-top if symmetric else bottom, top, symmetric=symmetric)
            rounded = ((middles / scale).round() + zero).clamp(LOWEST, HIGHEST) - zero
            error = float((weights * (rounded * scale - middles).square()).sum())
            if best is None or error < best[0]:
                best = error, bottom, top
    return (-best[2], best[2]) if symmetric else best[1:]


def entropy_range(counts: torch.Tensor, high: float) -> Range:
    """[-T, T] with the T whose 128 levels tell most about the distribution of magnitudes.

    Args:
        counts: magnitudes in each of the equal bins over [0, high], [bins].
        high: right edge of the last bin.
    """
    import torch

    total, best = counts.double(), None
    for end in range(LEVELS, len(counts) + 1, STRIDE):
        inside = total[:end]
        whole = inside.clone()
        whole[-1] += total[end:].sum()
        # Every level's values are spread evenly over those of its bins that have any.
        level = torch.arange(end) * LEVELS // end  # [end]
        sums = torch.zeros(LEVELS, dtype=torch.float64).index_add(0, level, inside)
        some = (inside > 0).double()
        bins = torch.zeros(LEVELS, dtype=torch.float64).index_add(0, level, some)
        spread = (sums / bins.clamp(min=1))[level] * some
        p, q = whole / whole.sum(), spread / spread.sum().clamp(min=1e-30)
        known = p > 0
        # Where the levels have nothing a small number stands for it: the divergence stays finite.
        divergence = float((p[known] * (p[known] / q[known].clamp(min=1e-12)).log()).sum())
        if best is None or divergence < best[0]:
            best = divergence, end
    top = high * best[1] / len(counts)
    return -top, top


def input_ranges(
    model: torch.nn.Module,
    modules: Mapping[str, torch.nn.Module],
    batches: list[dict[str, torch.Tensor]],
    calibration: str,
    *,
    percentile: float = 100.0,
    symmetric: bool = False,
) -> dict[str, Range]:
    """The input range of each module over `batches`.

    Args:
        model: runs the batches.
        modules: the linear maps by name.
        batches: rows, as the model is fed them.
        calibration: one of `CALIBRATIONS`.
        percentile: share of the values inside the range, in per cent, for that calibration.
        symmetric: whether the grids will be centered on 0.

    Raises:
        InputError: an input is not finite, or a module was never used.
    """
    ranges = _bounds(model, modules, batches, moving=calibration == "moving")
    refuse_unreached(modules, ranges, ", or --method dynamic")
    if calibration in ("minmax", "moving"):
        return ranges
    magnitudes = symmetric or calibration == "entropy"
    edges = ranges
    if magnitudes:
        edges = {name: (0.0, max(-low, high)) for name, (low, high) in ranges.items()}
    counts = _histograms(model, modules, batches, edges, magnitudes=magnitudes)
    found = {}
    for name, (low, high) in edges.items():
        if not high > low:
            found[name] = ranges[name]
        elif calibration == "percentile":
            found[name] = percentile_range(counts[name], low, high, percentile, symmetric=symmetric)
        elif calibration == "mse":
            found[name] = mse_range(counts[name], low, high, symmetric=symmetric)
        else:
            bottom, top = entropy_range(counts[name], high)
            seen = (bottom, top) if symmetric else ranges[name]
            found[name] = max(bottom, seen[0]), min(top, seen[1])
    return found


def _bounds(
    model: torch.nn.Module,
    modules: Mapping[str, torch.nn.Module],
    batches: list[dict[str, torch.Tensor]],
    *,
    moving: bool,
) -> dict[str, Range]:
    """Smallest and largest input of each module that was reached, 0 always between them."""
    import torch

    ranges: dict[str, Range] = {}

    def widen(names: Sequence[str], values: torch.Tensor) -> None:
        bounds = torch.stack(values.aminmax())  # [2]
        refuse_infinite(bounds, names[0])
        low, high = min(float(bounds[0]), 0.0), max(float(bounds[1]), 0.0)
        for name in names:
            before = ranges.get(name)
            if before is None:
                ranges[name] = low, high
            elif moving:
                pairs = zip(before, (low, high), strict=True)
                ranges[name] = tuple(old + MOVING_SHARE * (new - old) for old, new in pairs)
            else:
                ranges[name] = min(low, before[0]), max(high, before[1])

    watch_inputs(model, modules, batches, widen)
    return ranges


def _histograms(
    model: torch.nn.Module,
    modules: Mapping[str, torch.nn.Module],
    batches: list[dict[str, torch.Tensor]],
    edges: Mapping[str, Range],
    *,
    magnitudes: bool,
) -> dict[str, torch.Tensor]:
    """How many inputs of each module fall into each of the equal bins between its edges."""
    import torch

    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in edges}

    def count(names: Sequence[str], values: torch.Tensor) -> None:
        low, high = edges[names[0]]  # one input, one range
        if high > low:
            values = values.float().abs() if magnitudes else values.float()
            found = values.cpu().histc(BINS, low, high)
            for name in names:
                counts[name] += found

    watch_inputs(model, modules, batches, count)
    return counts
