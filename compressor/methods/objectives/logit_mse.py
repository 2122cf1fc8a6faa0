"""Distillation by the squared distance of the logits.

J. Ba, R. Caruana: Do Deep Nets Really Need to be Deep?, NeurIPS 2014, arXiv 1312.6184.

    L = (1 - h) mean((z_S - z_T)^2) + h L_hard(z_S, y)

with the mean over rows and classes (real tokens and words for language models). There is no
softmax and no temperature: it is what soft labels tend to at a high temperature, except that a
constant added to all of a row's logits counts here. With one output it is the regression on the
teacher's scores. L_hard is the cross-entropy, or the squared error for regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import answers
from compressor.methods.objectives.task import task_loss
from compressor.methods.option import option
from compressor.model.views import LOGITS, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = True
ANY_TOKENIZER = True
UNLABELLED = True


@dataclass(frozen=True)
class Options:
    """How much the labels count besides."""

    hard_weight: float = option(
        0.1, "h, the weight of the labels' own loss", low=0.0, high=1.0, source="mdistiller"
    )


def logit_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of [rows, classes] logits."""
    return (student.float() - teacher.float()).square().mean()


class Objective:
    """Mixes the distance of the logits with the labels' own loss."""

    student_shows = teacher_shows = frozenset({LOGITS})
    by_row = True

    def __init__(self, options: Options, context: Context) -> None:
        self.hard_weight, self.task = options.hard_weight, context.task

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The mixed loss of one batch."""
        hard = task_loss(self.task, student.logits, batch["labels"])
        soft = logit_distance(answers(student.logits, batch), answers(teacher.logits, batch))
        total = (1 - self.hard_weight) * soft + self.hard_weight * hard
        return Loss(total, {"logit_mse": soft.detach(), "hard": hard.detach()})
