"""Embeddings, hidden states and raw attention scores, layer by layer.

X. Jiao, Y. Yin, L. Shang, X. Jiang, X. Chen, L. Li, F. Wang, Q. Liu: TinyBERT, Findings of EMNLP
2020, arXiv 1909.10351; with the authors' code.

    L_attn(m) = (1/h) sum_i MSE(A_S^i, A_T^i),  A = Q K^T / sqrt(d_head) before the softmax
    L_hidn(m) = MSE(H_S W, H_T)
    L_embd    = MSE(E_S W, E_T)
    L         = L_embd + sum_m (L_hidn(m) + L_attn(m))

for student layer m and teacher layer g(m). It is the loss of the general stage (plain text, teacher
not fine-tuned) and of stage A (task data, fine-tuned teacher). Stage B is `soft_labels
--temperature 1 --hard-weight 0` from the student of stage A.

Means are over real tokens and real pairs of tokens only; the authors' own mean also counts
padding. The authors' extra ReLU head is left out: teacher and student keep their heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import (
    MAPS,
    hidden_distance,
    layer_pairs,
    projection,
    real_tokens,
)
from compressor.methods.option import option
from compressor.model.views import ATTENTION, HIDDEN, Views

if TYPE_CHECKING:
    import torch

VERBS = ("distill",)
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True
# Here the scores are Q K^T / sqrt(d_head) and nothing else. Elsewhere positions are rotated into
# queries and keys, or added to the scores.
PLAIN_SCORES = ("bert", "camembert", "distilbert", "electra", "roberta", "vit", "xlm-roberta")


@dataclass(frozen=True)
class Options:
    """Which layers are compared, and what counts how much."""

    layer_pairs: str = option("uniform", f"layers compared: {MAPS}", source="TinyBERT")
    projection: str = option(
        "shared",
        "learnt map from the student's width to the teacher's, where they differ",
        choices=("shared", "per-layer"),
        source="TinyBERT's code",
    )
    attention_weight: float = option(1.0, "weight of the attention scores", low=0.0)
    hidden_weight: float = option(1.0, "weight of the hidden states", low=0.0)
    embedding_weight: float = option(1.0, "weight of the embeddings' output", low=0.0)


def scores(queries: torch.Tensor, keys: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention scores before mask and softmax, [batch, heads, length, length].

    Args:
        queries: [batch, length, heads x head width].
        keys: the same.
        heads: h.
    """
    batch, length, width = queries.shape
    head_width = width // heads
    query = queries.view(batch, length, heads, head_width).transpose(1, 2)
    key = keys.view(batch, length, heads, head_width).transpose(1, 2)
    return query @ key.transpose(-1, -2) / head_width**0.5


def score_distance(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Mean squared difference over heads and pairs of real tokens.

    Args:
        student: [batch, heads, length, length] scores.
        teacher: the same.
        mask: [batch, length], 1 at real tokens.
    """
    real = mask.to(student.dtype)
    pairs = real[:, None, :, None] * real[:, None, None, :]  # [batch, 1, length, length]
    squares = (student.float() - teacher.float()).square() * pairs
    return squares.sum() / (pairs.sum() * student.shape[1])


class Objective:
    """Holds the projections and adds the terms up."""

    student_shows = teacher_shows = frozenset({HIDDEN, ATTENTION})

    def __init__(self, options: Options, context: Context) -> None:
        from torch import nn

        student, teacher = context.student_config, context.teacher_config
        _refuse_unlike(student, teacher)
        self.options, self.heads = options, student.num_attention_heads
        depths = student.num_hidden_layers, teacher.num_hidden_layers
        pairs = [pair for pair in layer_pairs(options.layer_pairs, *depths) if pair[0] > 0]
        self.pairs = [(0, 0), *pairs]
        count = len(self.pairs) if options.projection == "per-layer" else 1
        self.module = nn.ModuleList(
            projection(student.hidden_size, teacher.hidden_size) for _ in range(count)
        )

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The intermediate loss of one batch."""
        mask, options = real_tokens(batch, student.hidden[-1]), self.options
        maps = list(self.module) * (len(self.pairs) // len(self.module))
        hidden = [
            hidden_distance(project(student.hidden[m]), teacher.hidden[g], mask)
            for (m, g), project in zip(self.pairs, maps, strict=True)
        ]
        attention = [
            score_distance(
                scores(student.queries[m - 1], student.keys[m - 1], self.heads),
                scores(teacher.queries[g - 1], teacher.keys[g - 1], self.heads),
                mask,
            )
            for m, g in self.pairs[1:]
        ]
        parts = {"embedding": hidden[0], "hidden": sum(hidden[1:]), "attention": sum(attention)}
        total = (
            options.embedding_weight * parts["embedding"]
            + options.hidden_weight * parts["hidden"]
            + options.attention_weight * parts["attention"]
        )
        return Loss(total, {name: value.detach() for name, value in parts.items()})


def _refuse_unlike(student: object, teacher: object) -> None:
    for config in (student, teacher):
        if getattr(config, "heads_per_layer", None):
            raise InputError(
                "tinybert compares attention heads one by one, and the layers of this "
                f"{config.model_type} model have {', '.join(map(str, config.heads_per_layer))}",
                hint="--method minilm_v2 takes any number of heads",
            )
        if config.model_type not in PLAIN_SCORES:
            raise InputError(
                f"tinybert compares attention scores, which a {config.model_type} model mixes with "
                f"positions; it takes {', '.join(PLAIN_SCORES)}",
                hint="--method minilm_v2 takes any family with queries, keys and values",
            )
    if student.num_attention_heads != teacher.num_attention_heads:
        raise UsageError(
            f"tinybert compares attention heads one by one: the student has "
            f"{student.num_attention_heads}, the teacher {teacher.num_attention_heads}",
            hint=f"--student-heads {teacher.num_attention_heads}, or --method minilm_v2",
        )
