"""Patient distillation: the first token's state of many layers, not of the last alone.

S. Sun, Y. Cheng, Z. Gan, J. Liu: Patient Knowledge Distillation for BERT Model Compression, EMNLP
2019, arXiv 1908.09355.

    L_PT = mean over rows and pairs (j, g(j)) of || h_S^j / |h_S^j| - h_T^g(j) / |h_T^g(j)| ||^2

h is the state of the row's first token, [CLS]. This file is the term alone; the paper's loss is
`--method soft_labels --method pkd`. Only encoders that sum a row up in their first token are
taken: in a decoder that token sees nothing but itself.

The skip map gives student layer m = 1 ... M - 1 the teacher layer floor(m N / M), which is the
paper's 2,4,6,8,10 for 12 to 6 layers; the last layer is left to the soft labels. A student of one
layer has no other, and it is compared with the teacher's last.

The paper writes a sum over the width; the authors' code takes the mean, and its weights of 10 to
1000 go with that and a width of 768. As a sum they are 0.013 to 1.3. Where the widths differ,
which the paper leaves out, a learnt map for each pair comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import MAPS, layer_pairs, projection, real_tokens
from compressor.methods.option import option
from compressor.model.views import HIDDEN, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True
# Their tokenizers, or ViT itself, put a summary token first, and every token sees the whole row.
SUMMARY_FIRST = (
    *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"),
    *("modernbert", "mpnet", "roberta", "vit", "xlm-roberta"),
)


@dataclass(frozen=True)
class Options:
    """Which layers, in which form, and how much."""

    patience_pairs: str = option(
        "skip",
        f"layers compared: skip (every N / M-th layer of the teacher, not the last), {MAPS}",
        source="PKD",
    )
    patience_form: str = option(
        "sum",
        "squared distance as a sum over the width (paper) or a mean (the authors' code)",
        choices=("sum", "mean"),
        source="PKD",
    )
    patience_weight: float = option(
        1.0, "beta, the weight of the first tokens' distance", low=0.0, source="PKD, as a sum"
    )


def skip_pairs(student: int, teacher: int) -> list[tuple[int, int]]:
    """The skip map, as indices of the hidden-state lists.

    Args:
        student: M, the student's depth.
        teacher: N, the teacher's depth.

    Raises:
        UsageError: the student is deeper.
    """
    if student > teacher:
        raise UsageError(
            f"the student has {student} layers and the teacher only {teacher}",
            hint="--patience-pairs with pairs such as 2:1,4:2",
            where="--patience-pairs",
        )
    return [(m, m * teacher // student) for m in range(1, max(student, 2))]


def first_tokens(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[batch, width]: the state of each row's first real token.

    Args:
        hidden: [batch, length, width].
        mask: [batch, length], 1 at real tokens, which may stand on either side.
    """
    import torch

    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, mask.argmax(-1)]


def patience(student: torch.Tensor, teacher: torch.Tensor, form: str) -> torch.Tensor:
    """Squared distance of directions, mean over rows.

    Args:
        student: [batch, width].
        teacher: [batch, width].
        form: `sum` or `mean` over the width.
    """
    from torch.nn import functional as F

    learnt, taught = F.normalize(student.float(), dim=-1), F.normalize(teacher.float(), dim=-1)
    squares = (learnt - taught).square()  # [batch, width]
    return (squares.sum(-1) if form == "sum" else squares.mean(-1)).mean()


class Objective:
    """Compares first tokens, pair by pair."""

    student_shows = teacher_shows = frozenset({HIDDEN})

    def __init__(self, options: Options, context: Context) -> None:
        from torch import nn

        self.options = options
        student, teacher = context.student_config, context.teacher_config
        for config in (student, teacher):
            _refuse_without_summary(config.model_type)
        depths = student.num_hidden_layers, teacher.num_hidden_layers
        if options.patience_pairs == "skip":
            self.pairs = skip_pairs(*depths)
        else:
            self.pairs = layer_pairs(options.patience_pairs, *depths, flag="--patience-pairs")
        self.module = nn.ModuleList(
            projection(student.hidden_size, teacher.hidden_size) for _ in self.pairs
        )

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The patience of one batch, mean over pairs."""
        mask = real_tokens(batch, student.hidden[-1])
        found = [
            patience(
                project(first_tokens(student.hidden[m], mask)),
                first_tokens(teacher.hidden[g], mask),
                self.options.patience_form,
            )
            for (m, g), project in zip(self.pairs, self.module, strict=True)
        ]
        loss = sum(found) / len(found)
        return Loss(self.options.patience_weight * loss, {"patience": loss.detach()})


def _refuse_without_summary(family: str) -> None:
    if family not in SUMMARY_FIRST:
        raise InputError(
            f"pkd compares the first token of encoders that sum a row up in it, and {family} is "
            f"none of {', '.join(SUMMARY_FIRST)}",
            hint="--method hidden_mse compares all tokens, of any family",
        )
