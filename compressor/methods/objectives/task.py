"""The task's own loss on labels: plain fine-tuning.

Cross-entropy for classes and tokens, squared error for regression; the labelled-only baseline
against which distillation is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Batch, Context, Loss
from compressor.model.views import LOGITS, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = False
NEEDS_LOGITS = True
IGNORED = -100


@dataclass(frozen=True)
class Options:
    """Nothing to choose."""


def task_loss(task: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss of a batch on its labels.

    Args:
        task: a key of `compressor.data.tasks.TASKS`.
        logits: [batch, classes], [batch, 1], or [batch, length, vocabulary].
        labels: [batch] class ids or scores, [batch, classes] shares of the classes (float), or
            [batch, length] token ids; -100, or a score that is not a number, is left out. The loss
            is 0 where all are left out.
    """
    from torch.nn import functional as F

    if labels.dim() == 2 and labels.is_floating_point():
        return F.cross_entropy(logits.float(), labels)
    if task == "causal-lm":
        logits, labels = logits[:, :-1], labels[:, 1:]  # position t predicts token t + 1
    known = ~labels.isnan() if task == "regression" else labels != IGNORED
    if not known.any():  # a mean over nothing is not a number
        return 0.0 * logits.float().sum()
    if task == "regression":
        return F.mse_loss(logits.squeeze(-1).float()[known], labels[known].float())
    if not known.all():  # of a masked text few tokens are asked about
        logits, labels = logits[known], labels[known]
    return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten())


class Objective:
    """Scores the model on the labels."""

    student_shows = frozenset({LOGITS})
    by_row = True
    teacher_shows: frozenset[str] = frozenset()
    labelled_only = True

    def __init__(self, options: Options, context: Context) -> None:
        self.task = context.task

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The task loss of one batch."""
        total = task_loss(self.task, student.logits, batch["labels"])
        return Loss(total, {"task": total.detach()})
