"""Self-attention relations: the student's tokens resemble each other as the teacher's do.

W. Wang, H. Bao, S. Huang, L. Dong, F. Wei: MiniLMv2, Findings of ACL 2021, arXiv 2012.15828.

    R_X = softmax(X X^T / sqrt(d_r)),  X in {Q, K, V}, all heads joined and split into A_r
    L_X = mean over rows of 1 / (A_r n) sum_{a, t <= n} KL(R_X^T[a, t] || R_X^S[a, t])
    L   = L_Q + L_K + L_V

of the student's last layer and one layer of the teacher. Neither widths nor numbers of heads need
to be alike, and no layers are mapped. n is the row's real length: padded keys are masked and
padded queries skipped. Nothing after queries, keys and values of the student's last layer gets a
gradient from it; those parts learn afterwards. The six crossed relations (Q with K and so on)
that the authors tried are left out, as they left them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import real_tokens
from compressor.methods.option import option
from compressor.model.pruned import attention_width
from compressor.model.views import ATTENTION, Views

if TYPE_CHECKING:
    import torch

VERBS = ("distill",)
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True


@dataclass(frozen=True)
class Options:
    """Which layer, and how finely it is compared."""

    relation_heads: int = option(
        0, "A_r; 0 for the student's number of heads", low=0, source="range of the re-implementers"
    )
    relation_layer: int = option(
        0, "the teacher's layer, from 1; 0 for its last (large models: try 21 of 24)", low=0
    )
    relation_weight: float = option(1.0, "weight of the relations' loss", low=0.0)


def relations(states: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """Log R_X: how much each token resembles each other token, in each relation head.

    Args:
        states: [batch, length, width], all heads joined.
        mask: [batch, length], 1 at real tokens.
        heads: A_r, divides the width.

    Returns:
        [batch, heads, length, length] logarithms of probabilities over the last axis.
    """
    batch, length, width = states.shape
    # Split the width, not the positions: heads come out as the second axis only afterwards.
    split = states.float().view(batch, length, heads, width // heads).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / (width // heads) ** 0.5  # [batch, A_r, L, L]
    padded = (mask == 0)[:, None, None, :]  # [batch, 1, 1, length]
    return scores.masked_fill(padded, -1e9).log_softmax(-1)


def relation_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    """L_X of one kind of state.

    Args:
        student: [batch, length, student width].
        teacher: [batch, length, teacher width].
        mask: [batch, length], 1 at real tokens.
        heads: A_r.
    """
    log_student = relations(student, mask, heads)
    log_teacher = relations(teacher, mask, heads)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)  # [batch, A_r, L]
    real = mask[:, None, :].to(divergence.dtype)
    return ((divergence * real).sum((1, 2)) / (heads * mask.sum(-1))).mean()


class Objective:
    """Compares queries, keys and values of the last student layer with the teacher's layer."""

    student_shows = teacher_shows = frozenset({ATTENTION})

    def __init__(self, options: Options, context: Context) -> None:
        student, teacher = context.student_config, context.teacher_config
        self.heads = options.relation_heads or student.num_attention_heads
        self.weight = options.relation_weight
        depth = teacher.num_hidden_layers
        if options.relation_layer > depth:
            raise UsageError(
                f"--relation-layer {options.relation_layer}: the teacher has {depth} layers"
            )
        self.layer = (options.relation_layer or depth) - 1
        widths = attention_width(student, -1), attention_width(teacher, self.layer)
        for width in widths:
            if width % self.heads:
                both = [n for n in range(1, 129) if not any(each % n for each in widths)]
                raise UsageError(
                    f"{self.heads} relation heads do not divide a width of {width}",
                    hint=f"--relation-heads, one of {', '.join(map(str, both))}",
                    where="--relation-heads",
                )

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The summed relation losses of one batch."""
        mask = real_tokens(batch, student.queries[-1])
        found = {
            f"{name}_relations": relation_loss(
                getattr(student, name)[-1], getattr(teacher, name)[self.layer], mask, self.heads
            )
            for name in ("queries", "keys", "values")
        }
        parts = {name: value.detach() for name, value in found.items()}
        return Loss(self.weight * sum(found.values()), parts)
