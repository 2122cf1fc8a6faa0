"""Relational distillation: rows lie to each other as they do in the teacher's space.

W. Park, D. Kim, Y. Lu, M. Cho: Relational Knowledge Distillation, CVPR 2019, arXiv 1904.05068.

    L_D = mean over i, j    of huber(d_S(i, j) / mu_S, d_T(i, j) / mu_T)
    L_A = mean over i, j, k of huber(cos_S(i, j, k), cos_T(i, j, k))
    L   = l_d L_D + l_a L_A

d is the distance of two rows of a batch, mu the mean of those above zero, and cos(i, j, k) the
cosine of the angle at j. Means count the pairs of a row with itself, as the authors' do. Nothing
is projected: widths may differ.

A row is the mean of its real tokens' last hidden states: it is there in encoders and decoders,
with or without a head, and no token is favoured. The authors compare the embeddings of images.
Angles come from the matrix of inner products, so that memory grows with B^3 for B rows and never
with B^2 times the width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import real_tokens
from compressor.methods.option import option
from compressor.model.views import HIDDEN, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True
NO_DISTANCE = 1e-12  # squared; below it two rows are one, and have no direction


@dataclass(frozen=True)
class Options:
    """How much distances and angles count."""

    rkd_distance_weight: float = option(
        25.0, "l_d, weight of the distances", low=0.0, source="mdistiller; the authors' is 1"
    )
    rkd_angle_weight: float = option(
        50.0, "l_a, weight of the angles", low=0.0, source="mdistiller; the authors' is 2"
    )


def row_means(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[batch, width]: the mean of each row's real tokens.

    Args:
        hidden: [batch, length, width].
        mask: [batch, length], 1 at real tokens.
    """
    real = mask[..., None].float()  # [batch, length, 1]
    return (hidden.float() * real).sum(1) / real.sum(1)


def relations(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances in units of their mean [B, B], and cosines of angles [vertex, B, B].

    Both are zero for a row and itself, or a row like it, and so are their gradients.

    Args:
        rows: [B, width].
    """
    # Differences of inner products cancel: twice the digits keep those of near rows.
    centred = rows.double() - rows.double().mean(0)
    products = centred @ centred.T  # [B, B]
    squares = products.diagonal()  # [B]
    apart = squares[:, None] + squares[None, :] - 2 * products
    known = apart > NO_DISTANCE
    # Clamped before the root, whose gradient at zero is infinite.
    lengths = apart.clamp(min=NO_DISTANCE).sqrt()
    distances = lengths * known
    mean = distances.sum() / known.sum().clamp(min=1)
    inverse = (known / lengths).float()
    # <x_i - x_j, x_k - x_j> with the vertex j first.
    corners = products[None] - products[:, :, None] - products[:, None, :]
    cosines = (corners + squares[:, None, None]).float()  # [j, i, k]
    cosines = cosines * inverse[:, :, None] * inverse[:, None, :]
    return (distances / mean.clamp(min=NO_DISTANCE)).float(), cosines


def relation_losses(
    student: torch.Tensor, teacher: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """L_D and L_A.

    Args:
        student: [B, student width] rows.
        teacher: [B, teacher width].
    """
    from torch.nn import functional as F

    pairs = zip(relations(student), relations(teacher), strict=True)
    distance, angle = (F.smooth_l1_loss(learnt, taught) for learnt, taught in pairs)
    return distance, angle


class Objective:
    """Compares the rows of a batch with each other."""

    student_shows = teacher_shows = frozenset({HIDDEN})

    def __init__(self, options: Options, context: Context) -> None:
        self.options = options

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """Both parts of one batch."""
        mask = real_tokens(batch, student.hidden[-1])
        rows = (row_means(views.hidden[-1], mask) for views in (student, teacher))
        distance, angle = relation_losses(*rows)
        options = self.options
        total = options.rkd_distance_weight * distance + options.rkd_angle_weight * angle
        return Loss(total, {"rkd_distance": distance.detach(), "rkd_angle": angle.detach()})
