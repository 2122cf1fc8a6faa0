"""The trainings that checkpoints descend from, by what the folders of their lineage kept of them.

A training leaves its curve in run.json beside the lineage. A folder belongs to a lineage when its
own record is the beginning of it; it is looked for where the baseline of a report is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.lineage import RUN, folders_around, read_lineage
from compressor.checkpoint.reading import read_object
from compressor.errors import CompressorError

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint

MOST_POINTS = 200
_LARGEST = 1e30

Point = dict[str, Any]


def trainings(checkpoints: Mapping[str, Checkpoint]) -> list[dict[str, Any]]:
    """The training steps in the lineages whose curves can be found, each once.

    Args:
        checkpoints: opened folders by the name that a report gives them.

    Returns:
        One dict each, parents before children: "verb", "method", "models" (names of those that
        descend from it), "loss" and "scores" (rows of "step" and "value", at most MOST_POINTS:
        losses of training batches, and the metric on validation rows), "metric" (which one; None
        without scores), "kept_step" (where the weights that were kept were reached, or None).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, checkpoint in checkpoints.items():
        for steps, folder in sorted(_ancestors(checkpoint), key=lambda each: len(each[0])):
            key = json.dumps(steps, sort_keys=True)
            if key not in found and (curve := _curve(folder)):
                step = {part: str(steps[-1].get(part, "")) for part in ("verb", "method")}
                found[key] = {**step, "models": [], **curve}
            if key in found:
                found[key]["models"].append(name)
    return list(found.values())


def _ancestors(checkpoint: Checkpoint) -> Iterator[tuple[list[dict[str, Any]], Path]]:
    """The (lineage, folder) of the checkpoint itself and of those that it was made from."""
    steps = checkpoint.steps
    missing = set(range(1, len(steps) + 1))
    for folder in folders_around([checkpoint.path]) if steps else ():
        try:
            own = read_lineage(folder)
        except CompressorError:  # some folder nearby
            continue
        if len(own) in missing and own == steps[: len(own)]:
            missing.discard(len(own))
            yield own, folder
        if not missing:
            return


def _curve(folder: Path) -> dict[str, Any] | None:
    """What run.json keeps of a training; None where there was none, or the file is no such note."""
    try:
        run = read_object(folder / RUN)
    except CompressorError:
        return None
    curve = run.get("curve")
    entries = [e for e in curve if isinstance(e, dict)] if isinstance(curve, list) else []
    # Only training has a gradient; losses may be measured on validation rows too.
    trained = [entry for entry in entries if "gradient_norm" in entry]
    judged = [entry for entry in entries if "gradient_norm" not in entry]
    loss = _points(trained, "loss")
    metric = run.get("metric") or next((k for e in judged for k in e if k != "step"), None)
    scores = _points(judged, metric) if isinstance(metric, str) else []
    if not loss and not scores:
        return None
    kept = run.get("best_step")
    return {
        "loss": loss,
        "metric": metric if scores else None,
        "scores": scores,
        "kept_step": kept if type(kept) is int else None,
    }


def _points(entries: list[dict[str, Any]], name: str) -> list[Point]:
    """The values of `name` by step; of too many only every n-th and the last."""
    points = [
        {"step": entry["step"], "value": entry[name]}
        for entry in entries
        if type(entry.get("step")) is int
        and _is_plain(entry["step"])
        and _is_plain(entry.get(name))
    ]
    every = -(-len(points) // MOST_POINTS) or 1
    return points[::-1][::every][::-1]


def _is_plain(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return type(value) in (int, float) and abs(value) < _LARGEST
