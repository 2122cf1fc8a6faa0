"""Last hidden states that point where the teacher's point.

V. Sanh, L. Debut, J. Chaumond, T. Wolf: DistilBERT, 2019, arXiv 1910.01108, the cosine term alone.

    L_cos = mean over real tokens of 1 - cos(h_S, h_T)

The lengths of the vectors are free. DistilBERT's student is as wide as its teacher; where the
widths differ, a learnt map, trained and not saved, takes h_S to the teacher's width first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import per_token_mean, projection, real_tokens
from compressor.methods.option import option
from compressor.model.views import HIDDEN, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True


@dataclass(frozen=True)
class Options:
    """How much it counts."""

    cosine_weight: float = option(
        1.0, "weight of the angle between last hidden states", low=0.0, source="DistilBERT"
    )


def cosine_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over real tokens of 1 - cos.

    Args:
        student: [batch, length, width] hidden states, at the teacher's width.
        teacher: [batch, length, width].
        mask: [batch, length], 1 at real tokens.
    """
    from torch.nn import functional as F

    cosines = F.cosine_similarity(student.float(), teacher.float(), dim=-1)  # [batch, length]
    return per_token_mean(1 - cosines, mask)


class Objective:
    """Compares the last layers."""

    student_shows = teacher_shows = frozenset({HIDDEN})

    def __init__(self, options: Options, context: Context) -> None:
        self.weight = options.cosine_weight
        self.module = projection(
            context.student_config.hidden_size, context.teacher_config.hidden_size
        )

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The cosine loss of one batch."""
        learnt = self.module(student.hidden[-1])
        loss = cosine_loss(learnt, teacher.hidden[-1], real_tokens(batch, learnt))
        return Loss(self.weight * loss, {"cosine": loss.detach()})
