"""What the teacher shows of every batch, asked once for each distinct row where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from compressor import console
from compressor.data.distinct import distinct
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch
from compressor.model.views import ATTENTION, HIDDEN, LOGITS, Views, look
from compressor.train.cache import Cache, Keeping, open_cache

if TYPE_CHECKING:
    import torch

    from compressor.data.tasks import Task
    from compressor.train.feed import Feed
    from compressor.train.fill import Arrays
    from compressor.train.run import Run, Taught

FORMAT = 1  # of the kept answers


def why_not_kept(shows: frozenset[str], task: Task, *, hidden: bool) -> str:
    """Why the teacher must be asked in every step; empty where its answers can be kept.

    Args:
        shows: what the objectives look at.
        task: of the rows.
        hidden: whether hidden states are wanted on disk.
    """
    if task.name == "masked-lm":
        return "a masked LM sees other tokens in every epoch"
    if ATTENTION in shows:
        return "queries, keys and values are not kept"
    if LOGITS in shows and not task.labelled:
        return "a language model's answers, a number for each word of its vocabulary, are not kept"
    if HIDDEN in shows and task.reads == "image":
        return "hidden states of images are not kept"
    if HIDDEN in shows and not hidden:
        return "hidden states are kept only with --cache-hidden"
    return ""


class Teacher:
    """One teacher, or several whose logits are averaged.

    A classifier sees the same rows in every epoch, so one pass before training answers for all of
    them. Kept answers are those of an fp32 forward pass in batches of their own; asked in a step,
    the teacher rounds in other places (other padding, the run's `--precision`).

    Args:
        teachers: the models, which are moved to `device`.
        feed: the training rows.
        device: where training runs.
        shows: what the objectives look at.
        keeping: where answers are kept, with a folder.
        check: raises when the run should stop.

    Raises:
        InputError: the folder holds other answers.
        UsageError: several teachers, or one with tokens of its own, and something else than logits
            is wanted of them; or hidden states shall be kept and cannot be.
    """

    def __init__(
        self,
        teachers: Sequence[Taught],
        feed: Feed,
        device: torch.device,
        shows: frozenset[str],
        *,
        keeping: Keeping,
        check: Callable[[], None],
    ) -> None:
        _refuse_unlike_tokens(teachers, shows)
        total = sum(one.weight for one in teachers)
        self.models = [one.loaded.model.to(device).eval() for one in teachers]
        self.shares = [one.weight / total for one in teachers]
        self.feeds = [one.feed or feed for one in teachers]
        self.own_tokens = any(one.feed is not None for one in teachers)
        self.shows, self.device = shows, device
        self.why_not = why_not_kept(shows, feed.task, hidden=keeping.hidden)
        if keeping.hidden and (self.why_not or HIDDEN not in shows):
            why = self.why_not or "no objective looks at the teacher's hidden states"
            raise UsageError(f"--cache-hidden has nothing to keep: {why}", where="--cache-hidden")
        self.cache = None if self.why_not else self._kept(keeping, check)

    def _kept(self, keeping: Keeping, check: Callable[[], None]) -> Cache | None:
        encodings = [feed.encoded for feed in self._unlike_feeds()]
        rows = distinct(encodings)
        bound_to = {
            "format": FORMAT,
            **keeping.bound_to,
            "task": self.feeds[0].task.name,
            "max_length": max(encoded.max_length for encoded in encodings),
            "tokens": rows.fingerprint,
        }
        return open_cache(
            replace(keeping, bound_to=bound_to),
            rows,
            encodings[0].lengths,
            self.shows,
            self._answers,
            check,
        )

    def __call__(self, batch: Batch) -> Views:
        """What is seen of a batch of the training rows; kept hidden states are 0 at padding.

        A batch without `rows` is not one of theirs, and is asked about.
        """
        if "rows" not in batch:
            return self.ask(batch)
        if self.cache is None:
            return self._mean([self._inputs(batch, feed) for feed in self.feeds])
        import torch

        rows, device = batch["rows"].numpy(), self.device
        logits, hidden = None, ()
        if LOGITS in self.shows:
            logits = torch.from_numpy(self.cache.logits(rows)).to(device)  # [batch, classes]
        if HIDDEN in self.shows:
            states = self.cache.hidden(rows, batch["input_ids"].shape[1])
            hidden = tuple(torch.from_numpy(states).to(device).float())  # [batch, length, width]
        return Views(logits, hidden)

    def ask(self, batch: Batch) -> Views:
        """What is seen of any batch in the student's tokens, by a forward pass."""
        return self._mean([batch] * len(self.models))

    def _inputs(self, batch: Batch, feed: Feed) -> Batch:
        """A training batch in the tokens of one teacher."""
        if not self.own_tokens:
            return batch
        return feed.batch(batch["rows"].numpy(), self.device)

    def _unlike_feeds(self) -> list[Feed]:
        """The rows in every kind of tokens that a teacher reads, each once."""
        return list({id(feed): feed for feed in self.feeds}.values())

    def _mean(self, inputs: Sequence[Batch]) -> Views:
        """One forward pass of each teacher."""
        import torch

        with torch.no_grad():
            pairs = zip(self.models, inputs, strict=True)
            seen = [look(model, given, self.shows, bare=model) for model, given in pairs]
        if len(seen) == 1:
            return seen[0]
        pairs = zip(self.shares, seen, strict=True)
        return Views(sum(share * views.logits.float() for share, views in pairs))

    def _answers(self, rows: np.ndarray) -> Arrays:
        """What the teachers show of some training rows, each from its own tokens.

        Returns:
            LOGITS float32 [rows, classes]; HIDDEN float16 [tokens, layers + 1, width], the tokens
            of all rows one after the other, without padding.
        """
        import torch

        batches = {id(feed): feed.batch(rows, self.device) for feed in self._unlike_feeds()}
        inputs = [batches[id(feed)] for feed in self.feeds]
        views = self._mean(inputs)
        found = {}
        if LOGITS in self.shows:
            found[LOGITS] = views.logits.float().cpu().numpy()
        if HIDDEN in self.shows:
            real = inputs[0]["attention_mask"].bool()
            states = torch.stack([layer[real] for layer in views.hidden], dim=1)
            found[HIDDEN] = _halved(states).cpu().numpy()
        return found


def _halved(states: torch.Tensor) -> torch.Tensor:
    """Hidden states as float16, if all of them fit."""
    import torch

    largest = float(states.abs().max())
    if largest > torch.finfo(torch.float16).max:
        raise InputError(
            f"the teacher's hidden states come to {largest:.3g}, too large for float16, in which "
            "they are kept",
            hint="leave --cache-hidden out",
            where="--cache-hidden",
        )
    return states.to(torch.float16)


def _refuse_unlike_tokens(teachers: Sequence[Taught], shows: frozenset[str]) -> None:
    others = ", ".join(sorted(shows - {LOGITS}))
    if len(teachers) > 1 and others:
        raise UsageError(
            f"{len(teachers)} teachers can only be averaged in their answers, and this method "
            f"looks at their {others}",
            hint="name one teacher, or use --method soft_labels",
        )
    if others and any(one.feed is not None for one in teachers):
        raise UsageError(
            f"a teacher with tokens of its own can only be compared in its answers, and this "
            f"method looks at its {others}",
            hint="use --method soft_labels",
        )


def make_teacher(
    run: Run, shows: frozenset[str], device: torch.device, check: Callable[[], None]
) -> Teacher | None:
    """The teacher of a run; None where there is none, or nothing is wanted of it."""
    if not (run.teachers and shows):
        return None
    named = run.keeping.folder
    keeping = replace(run.keeping, folder=named or run.state.teacher_folder)
    teacher = Teacher(run.teachers, run.feed, device, shows, keeping=keeping, check=check)
    if named and teacher.why_not:
        console.note(f"the teacher is asked in every step: {teacher.why_not}")
    elif named and teacher.cache is not None:
        count = len(teacher.cache.rows)
        console.note(f"{named} has the teacher's answers to {count:,} distinct rows")
    return teacher
