"""What the teacher shows of every batch, computed once per row where the rows do not change."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor import console
from compressor.errors import UsageError
from compressor.methods.contract import Batch, model_inputs
from compressor.model.views import LOGITS, Views, look
from compressor.train.evaluate import model_arrays, torch_forward

if TYPE_CHECKING:
    import torch

    from compressor.train.feed import Feed
    from compressor.train.run import Run, Taught


class Teacher:
    """One teacher, or several whose logits are averaged.

    A classifier sees the same rows in every epoch, so one pass before training answers for all
    of them, and a resumed run reads the answers from `cache_file`. A masked LM sees other tokens
    each time and is asked each time.

    Args:
        teachers: the models, which are moved to `device`.
        feed: the training rows.
        device: where training runs.
        shows: what the objectives look at.
        cache_file: a `.npy` file [rows, classes] inside the run's own state folder.
        check: raises when the run should stop.

    Raises:
        UsageError: several teachers, and something else than logits is wanted of them.
    """

    def __init__(
        self,
        teachers: Sequence[Taught],
        feed: Feed,
        device: torch.device,
        shows: frozenset[str],
        *,
        cache_file: Path,
        check: Callable[[], None],
    ) -> None:
        if len(teachers) > 1 and shows - {LOGITS}:
            raise UsageError(
                f"{len(teachers)} teachers can only be averaged in their answers, and this method "
                f"looks at their {', '.join(sorted(shows - {LOGITS}))}",
                hint="name one teacher, or use --method soft_labels",
            )
        total = sum(one.weight for one in teachers)
        self.models = [one.loaded.model.to(device).eval() for one in teachers]
        self.shares = [one.weight / total for one in teachers]
        self.shows, self.cache = shows, None
        if shows == {LOGITS} and feed.task.labelled:
            if not cache_file.exists():
                _write(self._answers([one.feed or feed for one in teachers], check), cache_file)
            import torch

            self.cache = torch.from_numpy(np.load(cache_file))  # [rows, classes]

    def __call__(self, batch: Batch) -> Views:
        """What is seen of a batch of the training rows, from the cache where there is one."""
        if self.cache is None:
            return self.ask(batch)
        return Views(self.cache[batch["rows"]].to(batch["input_ids"].device))

    def ask(self, batch: Batch) -> Views:
        """What is seen of any batch, by a forward pass."""
        import torch

        with torch.no_grad():
            seen = [
                look(model, model_inputs(batch), self.shows, bare=model) for model in self.models
            ]
        if len(seen) == 1:
            return seen[0]
        pairs = zip(self.shares, seen, strict=True)
        return Views(sum(share * views.logits.float() for share, views in pairs))

    def _answers(self, feeds: Sequence[Feed], check: Callable[[], None]) -> np.ndarray:
        """The mean of all teachers' logits, float32 [rows, classes], each from its own tokens."""
        plans = [feed.plan(0, shuffle=False) for feed in feeds]
        mean: np.ndarray | None = None
        with console.Progress("teacher", sum(map(len, plans))) as progress:
            for feed, plan, model, share in zip(
                feeds, plans, self.models, self.shares, strict=True
            ):
                forward = torch_forward(model)
                for rows in plan:
                    check()
                    logits = forward(model_arrays(feed.arrays(rows)))
                    if mean is None:
                        mean = np.zeros((len(feed), logits.shape[-1]), dtype=np.float32)
                    mean[rows] += share * logits
                    progress.advance()
        return mean


def make_teacher(
    run: Run, shows: frozenset[str], device: torch.device, check: Callable[[], None]
) -> Teacher | None:
    """The teacher of a run; None where there is none, or nothing is wanted of it."""
    if not (run.teachers and shows):
        return None
    return Teacher(
        run.teachers, run.feed, device, shows, cache_file=run.state.teacher_file, check=check
    )


def _write(array: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        # Not `np.save`, which does not notice that the disk is full at the last few bytes.
        np.lib.format.write_array_header_1_0(
            stream, np.lib.format.header_data_from_array_1_0(array)
        )
        stream.write(array.data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
