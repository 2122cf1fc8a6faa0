"""Whole layers removed from a model, with nothing trained.

H. Sajjad, F. Dalvi, N. Durrani, P. Nakov: On the Effect of Dropping Layers of Pre-trained
Transformer Models, 2020/2023, arXiv 2004.03844. With L layers numbered from 0 at the bottom and K
to drop:

    top        {L-K ... L-1}          bottom     {0 ... K-1}
    even       every second layer counted down from L-1      odd   the same from L-2
    symmetric  the K in the middle, floor((L-K)/2) kept below them

The paper drops from the pre-trained model and fine-tunes afterwards; dropping from a fine-tuned
model without training it again loses far more. Contribution-based dropping needs data and is not
here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.methods.contract import Batch, option
from compressor.model.layers import only_stack
from compressor.model.surgery import keep_layers

if TYPE_CHECKING:
    from compressor.model.load import Loaded

VERBS = ("prune",)
STRATEGIES = ("top", "bottom", "alternate-even", "alternate-odd", "symmetric")


@dataclass(frozen=True)
class Options:
    """Which layers go."""

    drop: int = option(0, "number of layers to drop; 0 for half of them", low=0)
    strategy: str = option("top", "which layers to drop", choices=STRATEGIES, source="the paper")
    drop_layers: str = option("", "layers to drop, 0-based and comma-separated, instead of a rule")


def dropped_layers(layers: int, drop: int, strategy: str) -> list[int]:
    """The 0-based indices to drop, ascending.

    Args:
        layers: L, depth of the model.
        drop: K, number of layers to drop, 1 <= K < L.
        strategy: one of `STRATEGIES`.

    Raises:
        UsageError: the strategy cannot drop so many layers.
    """
    if not 0 < drop < layers:
        raise UsageError(f"--drop {drop}: a model of {layers} layers can lose 1 to {layers - 1}")
    if strategy == "top":
        return list(range(layers - drop, layers))
    if strategy == "bottom":
        return list(range(drop))
    if strategy == "symmetric":
        below = (layers - drop) // 2
        return list(range(below, below + drop))
    # The paper numbers layers from 1, so "even" layers sit at odd 0-based positions.
    first = 1 if strategy == "alternate-even" else 0
    candidates = list(range(first, layers, 2))
    if drop > len(candidates):
        raise UsageError(
            f"--strategy {strategy} can drop at most {len(candidates)} of {layers} layers, "
            f"not {drop}"
        )
    return candidates[-drop:]


def _explicit(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--drop-layers {text} is not a list of numbers such as 9,10,11") from None


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return False


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Drop layers in place; the facts hold the map new <- old."""
    _, stack = only_stack(loaded.model)
    depth = len(stack)
    if options.drop_layers:
        gone = _explicit(options.drop_layers)
    else:
        gone = dropped_layers(depth, options.drop or max(1, depth // 2), options.strategy)
    if gone[0] < 0 or gone[-1] >= depth:
        raise UsageError(f"--drop-layers {gone}: the model has layers 0 to {depth - 1}")
    kept = [index for index in range(depth) if index not in gone]
    keep_layers(loaded.model, kept)
    return {"kept_layers": kept, "dropped_layers": gone}
