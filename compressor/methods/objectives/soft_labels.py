"""Knowledge distillation from a teacher's softened outputs.

G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv
1503.02531.

    L = a T^2 KL(softmax(z_t / T) || softmax(z_s / T)) + (1 - a) CE(z_s, y)

summed over classes and averaged over rows (over real tokens for language models). T^2 keeps the
gradient's size when T changes. With one output (regression) the soft term is the squared distance
of the outputs. a = 0 is plain fine-tuning and needs no teacher forward pass.
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
    """How soft, and how much."""

    temperature: float = option(
        2.0, "T, divides both logits before the softmax", low=0.01, source="DistilBERT's code"
    )
    hard_weight: float = option(
        0.1, "1 - a, the weight of the labels' own loss", low=0.0, high=1.0, source="mdistiller"
    )


def soft_label_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T^2 KL(teacher || student), mean over rows.

    Args:
        student: [rows, classes] logits; one column means regression.
        teacher: [rows, classes] logits.
        temperature: T.
    """
    from compressor.model.divergence import Divergence

    if student.shape[-1] == 1:
        return (student.float() - teacher.float()).square().mean()
    return Divergence.apply(student, teacher, temperature)


class Objective:
    """Mixes the distance to the teacher's logits with the labels' own loss."""

    student_shows = frozenset({LOGITS})
    by_row = True

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.task = options, context.task
        self.teacher_shows = frozenset({LOGITS} if options.hard_weight < 1 else ())

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The mixed loss of one batch."""
        hard_weight = self.options.hard_weight
        hard = task_loss(self.task, student.logits, batch["labels"])
        if hard_weight == 1:
            return Loss(hard, {"hard": hard.detach()})
        learnt, taught = answers(student.logits, batch), answers(teacher.logits, batch)
        soft = soft_label_loss(learnt, taught, self.options.temperature)
        total = (1 - hard_weight) * soft + hard_weight * hard
        return Loss(total, {"soft": soft.detach(), "hard": hard.detach()})
