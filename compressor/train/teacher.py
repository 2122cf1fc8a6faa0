"""A teacher's logits for every batch, computed once per row where the rows do not change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor import console
from compressor.methods.contract import Batch, model_inputs
from compressor.train.evaluate import model_arrays, torch_forward

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded
    from compressor.train.feed import Feed


def teacher_logits(
    teacher: Loaded,
    feed: Feed,
    device: torch.device,
    *,
    cache_file: Path,
    check: Callable[[], None],
) -> Callable[[Batch], torch.Tensor]:
    """A function from a batch to the teacher's logits.

    A classifier sees the same rows in every epoch, so one pass before training answers for all
    of them, and a resumed run reads the answers from `cache_file`. A masked LM sees other tokens
    each time and is asked each time.

    Args:
        teacher: the model, which is moved to `device`.
        feed: the training rows.
        device: where training runs.
        cache_file: a `.npy` file [rows, classes] inside the run's own state folder.
        check: raises when the run should stop.
    """
    import torch

    model = teacher.model.to(device).eval()
    if feed.task.name in ("masked-lm", "causal-lm"):

        def ask(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                return model(**model_inputs(batch)).logits

        return ask
    if not cache_file.exists():
        _fill(model, feed, cache_file, check)
    cache = torch.from_numpy(np.load(cache_file))
    return lambda batch: cache[batch["rows"]].to(device)


def _fill(model: torch.nn.Module, feed: Feed, cache_file: Path, check: Callable[[], None]) -> None:
    forward = torch_forward(model)
    plan = feed.plan(0, shuffle=False)
    found: np.ndarray | None = None
    with console.Progress("teacher", len(plan)) as progress:
        for rows in plan:
            check()
            logits = forward(model_arrays(feed.arrays(rows)))
            if found is None:
                found = np.zeros((len(feed), logits.shape[-1]), dtype=np.float32)
            found[rows] = logits
            progress.advance()
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    partial = cache_file.with_suffix(".partial")
    with partial.open("wb") as stream:
        # Not `np.save`, which does not notice that the disk is full at the last few bytes.
        np.lib.format.write_array_header_1_0(
            stream, np.lib.format.header_data_from_array_1_0(found)
        )
        stream.write(found.data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(cache_file)
