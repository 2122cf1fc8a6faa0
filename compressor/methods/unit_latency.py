"""What a head and a neuron cost in time on this machine.

W. Kwon and others: A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022, arXiv
2204.09656: the latency of a part with x units left is measured for some x and described by

    t(x) = c  for x <= T        t(x) = c + a (x - T)  above

with the T whose least squares fit is best. Below T units come for free, so that a layer keeps T.
Ours: the whole model is timed, with x units in every layer, so that a call pays what it pays in
use; copies are timed in turns.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compressor.measure.latency import Timer, measure_in_turns, timed
from compressor.model.inputs import fed
from compressor.model.pruned import remove_units, widths_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COUNTS = 8  # widths that are timed of either kind
SECONDS = 20.0


@dataclass(frozen=True)
class UnitLatency:
    """Milliseconds of one call.

    Attributes:
        full: of the model as it is.
        head: of one more head, or group of heads, in one layer.
        neuron: of one more neuron.
        free: heads and neurons of a layer below which it gets no faster.
    """

    full: float
    head: float
    neuron: float
    free: tuple[int, int]


def fit(counts: Sequence[float], times: Sequence[float]) -> tuple[int, float]:
    """T and a of the best t(x); T is 1 where nothing comes free.

    Args:
        counts: x, ascending, two at least.
        times: t.
    """
    x, t = np.asarray(counts, dtype=float), np.asarray(times, dtype=float)
    best = None
    for bend in (1.0, *x[1:-1]):
        rise = np.maximum(x - bend, 0)
        slope = max(0.0, float(((rise - rise.mean()) * (t - t.mean())).sum() / rise.var()) / len(x))
        error = float(np.square(t - t.mean() - slope * (rise - rise.mean())).sum())
        if best is None or error < best[0]:
            best = error, int(bend), slope
    return best[1], best[2]


def measured(model: PreTrainedModel, batch: int, length: int) -> UnitLatency:
    """Time copies of a model with fewer heads, and with fewer neurons, in every layer.

    Args:
        model: of a family whose heads and neurons can be removed.
        batch: sequences of a call.
        length: tokens of each.
    """
    widths = widths_of(model)
    groups = [count // widths.group for count in widths.heads]
    shares = [number / COUNTS for number in range(1, COUNTS + 1)]
    counts: dict[str, float] = {}
    copies: dict[str, PreTrainedModel] = {"full": model}
    for kind, sizes in (("heads", groups), ("neurons", widths.ffn)):
        for share in shares[:-1]:
            left = [max(1, round(share * size)) for size in sizes]
            mean = sum(left) / len(left)
            name = f"{kind} {mean:g}"
            if name not in counts and left != list(sizes):
                counts[name] = mean
                units = (left, widths.ffn) if kind == "heads" else (groups, left)
                copies[name] = with_fewer(model, *units)
    times = times_of(copies, batch, length)
    layers, fits = len(groups), []
    for kind, sizes in (("heads", groups), ("neurons", widths.ffn)):
        names = [name for name in counts if name.startswith(kind)]
        points = [(counts[name], times[name]) for name in names]
        points.append((sum(sizes) / layers, times["full"]))
        fits.append(fit(*zip(*points, strict=True)) if len(points) > 1 else (sizes[0], 0.0))
    (free_heads, head), (free_neurons, neuron) = fits
    free = max(1, free_heads), max(1, free_neurons)
    return UnitLatency(times["full"], head / layers, neuron / layers, free)


def with_fewer(
    model: PreTrainedModel, heads: Sequence[int], neurons: Sequence[int]
) -> PreTrainedModel:
    """A copy with the first heads, or groups of heads, and neurons of every layer alone.

    It shares all weights with the model but those of the maps that are cut.
    """
    other = share_weights(model)
    remove_units(other, [list(range(n)) for n in heads], [list(range(n)) for n in neurons])
    return other


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the modules around the same weights."""
    same = {id(value): value for value in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, same)


def times_of(models: Mapping[str, PreTrainedModel], batch: int, length: int) -> dict[str, float]:
    """Median milliseconds of a call of each model, measured in turns."""
    import torch

    def candidate(model: PreTrainedModel) -> Timer:
        device = next(model.parameters()).device
        ids = torch.ones(batch, length, dtype=torch.long, device=device)
        inputs = fed(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})

        def call() -> None:
            with torch.inference_mode():
                model(**inputs)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return timed(call)

    candidates = {name: lambda *_, m=m: candidate(m.eval()) for name, m in models.items()}
    rows = measure_in_turns(candidates, [(batch, length)], seconds=SECONDS)
    return {name: row[0]["p50_ms"] for name, row in rows.items()}
