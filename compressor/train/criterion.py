"""The objectives of a run added up, with the forward passes that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from compressor.data.rows import NO_CLASS
from compressor.data.tasks import TASKS
from compressor.methods.contract import Batch, Context, Loss, Objective
from compressor.model.output_rows import only_at
from compressor.model.views import LOGITS, Views, look

if TYPE_CHECKING:
    import torch

    from compressor.train.feed import Feed
    from compressor.train.teacher import Teacher


class Criterion:
    """From a batch to its loss: one pass of the student, one of the teacher at most.

    Attributes:
        module: the objectives' own parameters; None if they have none.
    """

    def __init__(self, objectives: list[Objective], context: Context) -> None:
        from torch import nn

        self.objectives, self.model = objectives, context.model
        self.bare = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        self.student_shows = _together(objectives, "student_shows")
        self.teacher_shows = _together(objectives, "teacher_shows")
        # Where nobody looks at other tokens, no scores over the vocabulary are made for them.
        self.asks_labelled = context.task == "masked-lm" and all(
            getattr(one, "labelled_only", False) for one in objectives
        )
        self.answers_rows = TASKS[context.task].labelled
        own = [one.module for one in objectives if getattr(one, "module", None) is not None]
        self.module = nn.ModuleList(own) if own else None

    @property
    def judges_by_loss(self) -> bool:
        """Whether no objective looks at the answers, so that the task's metrics say nothing."""
        return LOGITS not in self.student_shows

    @property
    def has_rows(self) -> bool:
        """Whether every row of a batch has a loss of its own."""
        return self.answers_rows and all(getattr(one, "by_row", False) for one in self.objectives)

    def by_row(
        self,
        batch: Batch,
        teach: Callable[[Batch], Views] | None,
        model: torch.nn.Module | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each row of a batch, [rows], from one pass of the student; parts' means.

        Args:
            batch: arrays of the feed.
            teach: what the teacher shows of a batch; None without a teacher.
            model: the student as it shall compute; the one that is trained if absent.
        """
        import torch

        student = look(model or self.model, batch, self.student_shows, bare=self.bare)
        teacher = teach(batch) if teach is not None and self.teacher_shows else Views()
        losses, parts = [], {}
        for number in range(len(batch["labels"])):
            row = slice(number, number + 1)
            alone = {name: values[row] for name, values in batch.items()}
            shown = student.rows(row), teacher.rows(row)
            found = [one.loss(alone, *shown) for one in self.objectives]
            losses.append(sum(one.total for one in found))
            for name, value in ((k, v) for one in found for k, v in one.parts.items()):
                parts[name] = parts.get(name, 0.0) + value / len(batch["labels"])
        return torch.stack(losses), parts

    def before_step(self, step: int) -> None:
        """Tell the objectives that have a schedule which step comes."""
        for one in self.objectives:
            if hasattr(one, "before_step"):
                one.before_step(step)

    def __call__(self, batch: Batch, teach: Callable[[Batch], Views] | None) -> Loss:
        """The sum of all objectives on one batch.

        Args:
            batch: arrays of the feed.
            teach: what the teacher shows of a batch; None without a teacher.
        """
        return self._loss(self.model, batch, teach)

    def _loss(
        self, model: torch.nn.Module, batch: Batch, teach: Callable[[Batch], Views] | None
    ) -> Loss:
        if self.asks_labelled:
            chosen = batch["labels"] != NO_CLASS
            with only_at(self.bare, chosen) as narrows:
                student = look(model, batch, self.student_shows, bare=self.bare)
            if narrows:
                batch = {**batch, "labels": batch["labels"][chosen]}  # [chosen]
        else:
            student = look(model, batch, self.student_shows, bare=self.bare)
        teacher = teach(batch) if teach is not None and self.teacher_shows else Views()
        losses = [one.loss(batch, student, teacher) for one in self.objectives]
        total, parts = losses[0].total, dict(losses[0].parts)
        for other in losses[1:]:
            total = total + other.total
            parts.update(other.parts)
        return Loss(total, parts)

    def held_out(
        self, feed: Feed, teacher: Teacher | None, check: Callable[[], None]
    ) -> dict[str, float]:
        """The mean loss of a split and its parts, with the model as it is.

        Args:
            feed: the split.
            teacher: asked anew for every batch.
            check: called before every batch; raises to stop.
        """
        import torch

        device = next(self.bare.parameters()).device
        sums: dict[str, float] = {}
        for number, rows in enumerate(feed.plan(0, shuffle=False)):
            check()
            batch = feed.batch(rows, device, 0, number)
            with torch.no_grad():
                loss = self._loss(self.bare, batch, teacher.ask if teacher else None)
            for name, value in {"loss": loss.total, **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows) / len(feed)
        return sums


def _together(objectives: list[Objective], name: str) -> frozenset[str]:
    return frozenset().union(*(getattr(one, name) for one in objectives))
