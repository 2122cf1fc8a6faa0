"""Latency, first answer and memory of candidates, each in a process of its own."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.products import Products, products_of
from compressor.commands.candidates import Candidate, open_calls
from compressor.measure.isolated import Isolated
from compressor.measure.latency import FEWEST_ROUNDS, measure_in_turns, pooled
from compressor.measure.scaling import grid, scaling_of
from compressor.model.devices import peak_gpu_bytes
from compressor.model.products import open_products

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint

# All starts together, and one shape.
SECONDS = 20.0
# A point of the grid is one of many that a curve is drawn through.
SCALING_ROUNDS, SCALING_SECONDS = 10, 8.0

# What several starts of one model are told by.
_MIDDLE: dict[str, Callable[[list[Any]], Any]] = {
    "open_ms": statistics.median,
    "first_ms": statistics.median,
    "answer_ms": statistics.median,
    "peak_memory_bytes": max,
    "peak_gpu_bytes": max,
}


@dataclass(frozen=True)
class Timed:
    """What another process needs to know to time a model.

    Attributes:
        name: how the report calls it.
        checkpoint: the opened folder.
        vocabulary: how many ids it knows.
        longest: most tokens that it takes.
        products: what its layers multiply.
        device: where it runs.
        precision: number format that PyTorch computes in.
    """

    name: str
    checkpoint: Checkpoint
    vocabulary: int
    longest: int
    products: Products
    device: str
    precision: str = "fp32"

    @classmethod
    def of(cls, candidate: Candidate) -> Timed:
        """The same of a candidate, whose model need not be kept."""
        return cls(
            name=candidate.name,
            checkpoint=candidate.checkpoint,
            vocabulary=candidate.vocabulary,
            longest=candidate.longest,
            products=products_of(candidate.checkpoint),
            device=candidate.device,
            precision=candidate.precision,
        )


def cores_for(threads: int) -> tuple[int, ...]:
    """The cores that every candidate is held to, as many as its threads; () if it cannot be.

    The last ones: the first core serves most interrupts.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0))[-threads:])


def time_candidates(
    models: Sequence[Timed],
    shapes: Sequence[tuple[int, int]],
    *,
    rounds: int,
    starts: int,
    threads: int,
    scaling: bool,
) -> dict[str, dict[str, Any]]:
    """Measure all models in turns, in several fresh processes of each one after the other.

    Args:
        models: what to time.
        shapes: the (batch, length) pairs; those that a model has no positions for are left out.
        rounds: turns of each model at each shape, divided among the starts.
        starts: processes of each model.
        threads: threads of each runtime.
        scaling: measure over a grid of shapes, too, beside the plain matrix products.

    Returns:
        name -> latency (see `pooled`), open_ms and first_ms (see `Isolated`) and answer_ms, both
        together (medians of the starts), the largest peak_memory_bytes of a whole process and
        peak_gpu_bytes of torch in it, and scaling (see `scaling_of`) where it is asked.
    """
    longest = min(model.longest for model in models)
    fitting = [shape for shape in shapes if shape[1] <= longest]
    if len(fitting) < len(shapes):
        console.warn(f"shapes longer than {longest} tokens are left out: a model has no more")
    found: dict[str, list[dict[str, Any]]] = {model.name: [] for model in models}
    parts = starts * (len(models) + len(fitting))
    with console.Progress("latency", parts, unit="parts") as progress:
        for start in range(starts):
            with ExitStack() as stack:
                first = start % len(models)  # that no model is always the first
                opened = _opened([*models[first:], *models[:first]], stack, threads, progress)
                rows = measure_in_turns(
                    {name: isolated.prepare for name, isolated in opened.items()},
                    fitting,
                    rounds=-(-rounds // starts),
                    fewest=-(-FEWEST_ROUNDS // starts),
                    seconds=SECONDS / starts,
                    progress=progress,
                )
                for name, isolated in opened.items():
                    found[name].append({"latency": rows[name], **_facts(isolated)})
                if scaling and start == starts - 1:
                    grown = _scaling(models, opened, stack, threads, longest)
    together = {name: _together(each) for name, each in found.items()}
    if scaling:
        for name, each in grown.items():
            together[name]["scaling"] = each
    return together


def _opened(
    models: Sequence[Timed], stack: ExitStack, threads: int, progress: console.Progress
) -> dict[str, Isolated]:
    opened = {}
    for model in models:
        calls = partial(
            open_calls,
            model.checkpoint,
            threads,
            model.device,
            model.vocabulary,
            model.precision,
        )
        isolated = Isolated(model.name, calls, cores_for(threads))
        opened[model.name] = stack.enter_context(isolated)
        progress.advance(opened=model.name)
    return opened


def _facts(isolated: Isolated) -> dict[str, Any]:
    first = isolated.first_ms
    return {
        "open_ms": isolated.open_ms,
        "first_ms": first,
        "answer_ms": None if first is None else isolated.open_ms + first,
        "peak_memory_bytes": isolated.peak_memory_bytes(),
        "peak_gpu_bytes": isolated.ask(peak_gpu_bytes),
    }


def _together(starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the report says of one model that was started several times."""
    by_shape = zip(*(start["latency"] for start in starts), strict=True)
    together: dict[str, Any] = {"latency": [pooled(rows) for rows in by_shape]}
    for key, middle in _MIDDLE.items():
        known = [start[key] for start in starts if start[key] is not None]
        together[key] = middle(known) if known else None
    return together


def _scaling(
    models: Sequence[Timed],
    opened: dict[str, Isolated],
    stack: ExitStack,
    threads: int,
    longest: int,
) -> dict[str, dict[str, Any]]:
    """Every model and its matrix products over the grid, in turns."""
    candidates = {f"model {name}": isolated.prepare for name, isolated in opened.items()}
    for model in models:
        products = partial(open_products, model.products, threads, model.device)
        isolated = Isolated(f"the products of {model.name}", products, cores_for(threads))
        candidates[f"products {model.name}"] = stack.enter_context(isolated).prepare
    rows = measure_in_turns(
        candidates, grid(longest), rounds=SCALING_ROUNDS, seconds=SCALING_SECONDS
    )
    return {
        model.name: scaling_of(rows[f"model {model.name}"], rows[f"products {model.name}"])
        for model in models
    }
