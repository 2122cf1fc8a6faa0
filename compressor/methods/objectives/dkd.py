"""Decoupled distillation: how sure the teacher is, and what it thinks of the other classes.

B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang: Decoupled Knowledge Distillation, CVPR 2022, arXiv
2203.08679.

    TCKD = T^2 KL((p_y, 1 - p_y)_T || (p_y, 1 - p_y)_S)
    NCKD = T^2 KL(q_T || q_S),  q the softmax over all classes but y
    L    = CE + w (a TCKD + b NCKD),  w = min(e / E, 1) at epoch e

with p and q at temperature T. Plain distillation is TCKD + (1 - p_y) NCKD with the teacher's p_y:
a sure teacher says little about the other classes, and b gives that a weight of its own.

q leaves the label's column out, and 1 - p_y is the sum over the other columns in log space; the
authors push the label's logit down by 1000 instead, which overflows in half precision. w rises
step by step, not epoch by epoch. The authors' E of 20 belongs to 240 epochs; here it is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.data.tasks import has_classes
from compressor.errors import UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.objectives.task import task_loss
from compressor.methods.option import option
from compressor.model.views import LOGITS, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = True
ANY_TOKENIZER = True
ONE_CLASS = True
# With two, there is one other class, its share q is 1 for everybody, and NCKD is always zero.
FEWEST_CLASSES = 3


@dataclass(frozen=True)
class Options:
    """How soft, and how much each part counts."""

    dkd_temperature: float = option(4.0, "T, divides both logits", low=0.01, source="DKD's code")
    target_weight: float = option(
        1.0, "a, weight of the label's class against the rest", low=0.0, source="DKD's code"
    )
    other_weight: float = option(
        8.0,
        "b, weight of the other classes; the authors use 0.5 to 8",
        low=0.0,
        source="CIFAR-100",
    )
    dkd_warmup: float = option(
        1.0, "E, epochs over which both weights rise from 0; 0 for none", low=0.0
    )


def decoupled(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """TCKD and NCKD of every row, [rows] each.

    Args:
        student: [rows, classes] logits.
        teacher: [rows, classes] logits.
        labels: [rows] class ids.
        temperature: T.
    """
    target_s, others_s = _log_shares(student, labels, temperature)
    target_t, others_t = _log_shares(teacher, labels, temperature)
    scale = temperature**2
    return scale * _divergence(target_t, target_s), scale * _divergence(others_t, others_s)


def _log_shares(
    logits: torch.Tensor, labels: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logs of (p_y, 1 - p_y) [rows, 2] and of q [rows, classes - 1]."""
    import torch
    from torch.nn import functional as F

    scaled = logits.float() / temperature
    own = F.one_hot(labels, scaled.shape[-1]).bool()  # [rows, classes]
    others = scaled[~own].view(len(scaled), -1)  # [rows, classes - 1]
    two = torch.stack([scaled[own], others.logsumexp(-1)], dim=-1)  # [rows, 2]
    return two.log_softmax(-1), others.log_softmax(-1)


def _divergence(log_teacher: torch.Tensor, log_student: torch.Tensor) -> torch.Tensor:
    return (log_teacher.exp() * (log_teacher - log_student)).sum(-1)  # [rows]


def warm_up(epoch: float, epochs: float) -> float:
    """w: the share of the full weight after `epoch` epochs, perhaps a fraction."""
    return min(epoch / epochs, 1.0) if epochs else 1.0


class Objective:
    """Adds both parts to the labels' own loss."""

    student_shows = teacher_shows = frozenset({LOGITS})
    by_row = True

    def __init__(self, options: Options, context: Context) -> None:
        _refuse_misfit(context)
        self.options, self.task = options, context.task
        self.steps_per_epoch = max(1, context.steps_per_epoch)
        self.before_step(0)

    def before_step(self, step: int) -> None:
        """Set the weight of optimizer step `step`."""
        self.share = warm_up(step / self.steps_per_epoch, self.options.dkd_warmup)

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The loss of one batch."""
        options, labels = self.options, batch["labels"]
        hard = task_loss(self.task, student.logits, labels)
        rows = decoupled(student.logits, teacher.logits, labels, options.dkd_temperature)
        tckd, nckd = (part.mean() for part in rows)
        soft = options.target_weight * tckd + options.other_weight * nckd
        parts = {"tckd": tckd.detach(), "nckd": nckd.detach(), "hard": hard.detach()}
        return Loss(hard + self.share * soft, parts)


def _refuse_misfit(context: Context) -> None:
    if not has_classes(context.task):
        raise UsageError(
            f"dkd sets the label's class apart from the others, and {context.task} has no classes "
            "of rows",
            hint="--method logit_mse or --method soft_labels",
            where="--method dkd",
        )
    classes = context.student_config.num_labels
    if classes < FEWEST_CLASSES:
        raise UsageError(
            f"dkd needs {FEWEST_CLASSES} classes or more, and this task has {classes}: with one "
            "other class beside the label's, its second part is always zero",
            hint="--method soft_labels",
            where="--method dkd",
        )
