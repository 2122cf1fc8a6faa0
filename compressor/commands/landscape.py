"""The loss landscape of float models on rows of a split, for the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor import console
from compressor.errors import UsageError

if TYPE_CHECKING:
    import torch

    from compressor.checkpoint.folder import Checkpoint
    from compressor.commands.measure_options import MeasureOptions
    from compressor.data.dataset import Dataset
    from compressor.model.load import Loaded

DIRECTIONS = 3  # two random ones in millions of dimensions say little alone
HESSIAN_ROWS = 64  # as many as a second derivative has room for
POWER_STEPS = 20
BETWEEN = (-0.5, 1.5)


def refuse_flat(measure: MeasureOptions, dataset: Dataset | None) -> None:
    """Refuse `--landscape` where there is no loss to draw, before any work.

    Raises:
        UsageError: no rows, or a language model's.
    """
    if not measure.landscape:
        return
    if dataset is None or not dataset.task.labelled:
        raise UsageError(
            "--landscape draws the loss on labelled rows", hint="add --data", where="--landscape"
        )


def landscapes(
    checkpoints: Mapping[str, Checkpoint],
    dataset: Dataset,
    split: str,
    measure: MeasureOptions,
    device: str,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Draw the landscape of every float model, all on the same rows with the same directions.

    Returns:
        name -> rows, places, lines (one for each direction), surface (of the first two), rho,
        worst, adaptive_worst, average, hessian_rows (of those, evenly spread, that eigenvalue and
        trace are about), eigenvalue, trace, seconds; for all but the first float
        model of the same shapes also `between`: places and losses on the way from the first to it.
    """
    from compressor.model.landscape import weights_of
    from compressor.model.load import load
    from compressor.model.tasks import task_of

    found: dict[str, dict[str, Any]] = {}
    first: dict[str, torch.Tensor] = {}
    for name, checkpoint in checkpoints.items():
        if checkpoint.quantization is not None:
            console.note(f"{name}: integers have no smooth landscape; draw the float model's")
            continue
        if checkpoint.runtime != "torch":
            console.note(f"{name}: a graph's weights cannot be moved; draw the model it is of")
            continue
        loaded = load(checkpoint, task_of(checkpoint), attention="eager")
        found[name] = _one(name, loaded, dataset, split, measure, device, seed, first)
        if not first:
            first = {key: w.detach().clone() for key, w in weights_of(loaded.model).items()}
    return found


def _one(
    name: str,
    loaded: Loaded,
    dataset: Dataset,
    split: str,
    measure: MeasureOptions,
    device: str,
    seed: int,
    first: Mapping[str, torch.Tensor],
) -> dict[str, Any]:
    from compressor.model import landscape
    from compressor.model.devices import choose_device

    started = time.monotonic()
    model = loaded.model.to(choose_device(device)).eval()
    many, few = (
        rows_of(loaded, dataset, split, rows=rows, max_length=measure.max_length)
        for rows in (measure.landscape_rows, min(HESSIAN_ROWS, measure.landscape_rows))
    )
    loss, curved = (_mean_loss(model, batches, dataset.task.name) for batches in (many, few))
    grid = [float(p) for p in np.linspace(-1, 1, measure.landscape_grid) * measure.landscape_radius]
    seeds = [seed + number for number in range(DIRECTIONS)]
    ways = [landscape.random_direction(model, one) for one in seeds]
    lines = [landscape.line(model, loss, way, grid) for way in ways]
    drawn = []
    with console.Progress(f"landscape of {name}", len(grid)) as progress:
        for row in landscape.surface(model, loss, (ways[0], ways[1]), grid):
            drawn.append(row)
            progress.advance()
    rho, gamma = measure.landscape_rho, measure.landscape_radius / 2
    _, rises = landscape.sharpness(model, loss, rho=rho, gamma=gamma, seeds=seeds)
    return {
        "rows": sum(len(batch["labels"]) for batch in many),
        "places": grid,
        "lines": lines,
        "surface": drawn,
        "between": _between(model, loss, first, measure.landscape_grid),
        "rho": rho,
        **rises,
        "hessian_rows": sum(len(batch["labels"]) for batch in few),
        "eigenvalue": landscape.largest_eigenvalue(model, curved, steps=POWER_STEPS, seed=seed),
        "trace": landscape.trace(model, curved, seeds),
        "seconds": time.monotonic() - started,
    }


def _between(
    model: Any, loss: Any, first: Mapping[str, torch.Tensor], count: int
) -> dict[str, list[float]] | None:
    """Losses at `count` places on the way from the first model; None where no way leads."""
    from compressor.model import landscape

    back = landscape.difference(model, first) if first else None
    if back is None:
        return None
    places = [float(place) for place in np.linspace(*BETWEEN, count)]
    # `back` leads to the first model, where the way begins.
    return {
        "places": places,
        "losses": landscape.line(model, loss, back, [1 - place for place in places]),
    }


def sharpness(
    loaded: Loaded,
    dataset: Dataset,
    split: str,
    *,
    rows: int,
    max_length: int,
    rho: float,
    gamma: float,
    seed: int,
) -> dict[str, float]:
    """How much the loss of a model on its device rises around its weights.

    Args:
        loaded: the model.
        dataset: the opened data.
        split: whose rows.
        rows: how many of them at most.
        max_length: longest input in tokens.
        rho: length of the step along the gradient.
        gamma: length of the random steps, in lengths of the weights.
        seed: of their directions.

    Returns:
        loss, and by how much it rises: worst, adaptive_worst and average; see
        `compressor.model.landscape`.
    """
    from compressor.model import landscape

    batches = rows_of(loaded, dataset, split, rows=rows, max_length=max_length)
    loss = _mean_loss(loaded.model.eval(), batches, dataset.task.name)
    seeds = [seed + number for number in range(DIRECTIONS)]
    here, rises = landscape.sharpness(loaded.model, loss, rho=rho, gamma=gamma, seeds=seeds)
    return {"loss": here, **rises}


def rows_of(
    loaded: Loaded, dataset: Dataset, split: str, *, rows: int, max_length: int
) -> list[dict[str, torch.Tensor]]:
    """Batches of rows that are spread evenly over the split, on the model's device."""
    from compressor.train.feed import feed_of

    every = list(dataset.rows(split))
    places = np.linspace(0, len(every) - 1, min(rows, len(every))).round().astype(int)
    with TemporaryDirectory(prefix="compressor-") as scratch:
        feed = feed_of(
            (every[place] for place in places),
            loaded.reader,
            dataset.task,
            max_length=max_length,
            folder=Path(scratch),
            batch_size=32,
        )
        device = next(loaded.model.parameters()).device
        return [
            feed.batch(chosen, device, 0, number)
            for number, chosen in enumerate(feed.plan(0, shuffle=False))
        ]


def _mean_loss(
    model: Any, batches: list[dict[str, torch.Tensor]], task: str
) -> Callable[[], Iterator[torch.Tensor]]:
    """A function that gives each batch's share of the mean loss over all rows."""
    from compressor.methods.objectives.task import task_loss
    from compressor.model.inputs import fed

    total = sum(len(batch["labels"]) for batch in batches)

    def shares() -> Iterator[torch.Tensor]:
        for batch in batches:
            logits = model(**fed(model, batch)).logits
            yield task_loss(task, logits, batch["labels"]) * (len(batch["labels"]) / total)

    return shares
