"""Hidden states of matched layers, compared by squared distance.

A. Romero, N. Ballas, S. Kahou, A. Chassang, C. Gatta, Y. Bengio: FitNets, 2015, arXiv 1412.6550
(a hint layer and a learnt map); Z. Yang and others: TextBrewer, 2020, ACL demonstrations (several
layers of Transformers).

    L = sum over pairs (m, g) of mean((W_m H_S^m - H_T^g)^2)

The mean runs over real tokens and the teacher's width. W_m is learnt, one for each pair, and only
there where the widths differ. FitNets trains up to its hint first and on labels afterwards; here
the loss is added to others (`--method soft_labels --method hidden_mse`) or runs alone on plain
text, and a second command goes on from there.

By default every student layer has a partner (`uniform`), so that no layer is left to find its own
way and none of the losses waits at the far end of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import (
    MAPS,
    hidden_distance,
    layer_pairs,
    projection,
    real_tokens,
)
from compressor.methods.option import option
from compressor.model.views import HIDDEN, Views

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True


@dataclass(frozen=True)
class Options:
    """Which layers, and how much they count."""

    layer_pairs: str = option("uniform", f"layers compared: {MAPS}", source="TextBrewer")
    hidden_mse_weight: float = option(
        1.0, "weight of the hidden states' squared distance", low=0.0, source="TextBrewer"
    )


class Objective:
    """Holds the maps between widths and adds the pairs up."""

    student_shows = teacher_shows = frozenset({HIDDEN})

    def __init__(self, options: Options, context: Context) -> None:
        from torch import nn

        student, teacher = context.student_config, context.teacher_config
        self.weight = options.hidden_mse_weight
        self.pairs = layer_pairs(
            options.layer_pairs, student.num_hidden_layers, teacher.num_hidden_layers
        )
        self.module = nn.ModuleList(
            projection(student.hidden_size, teacher.hidden_size) for _ in self.pairs
        )

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The summed distance of one batch."""
        mask = real_tokens(batch, student.hidden[-1])
        distance = sum(
            hidden_distance(project(student.hidden[m]), teacher.hidden[g], mask)
            for (m, g), project in zip(self.pairs, self.module, strict=True)
        )
        return Loss(self.weight * distance, {"hidden_mse": distance.detach()})
