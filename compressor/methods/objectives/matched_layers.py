"""Hidden states of some teacher layers, each learnt by the student layer that comes closest.

M. Xia, Z. Zhong, D. Chen: Structured Pruning Learns Compact and Accurate Models, ACL 2022, arXiv
2204.00408. For teacher layers i in T, here `layers` of them spread evenly up to the last,

    m(i) = argmin over j of MSE(H_S^j W, H_T^i)        L = sum over i in T of MSE(H_S^m(i) W, H_T^i)

over real tokens. The match is found anew for every batch, because a student that is being pruned
moves what it does from layer to layer. W is one learnt map for all layers that begins as the
identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import hidden_distance, real_tokens
from compressor.methods.option import option
from compressor.model.views import HIDDEN, Views

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = False
UNLABELLED = True


@dataclass(frozen=True)
class Options:
    """How many layers, and how much they count."""

    matched_layers: int = option(4, "teacher layers that are learnt", low=1, source="the paper")
    matched_weight: float = option(
        9.0, "weight beside the other losses: 0.9 to their 0.1", low=0.0, source="the paper"
    )


def spread(count: int, depth: int) -> list[int]:
    """`count` layers of `depth`, counted from 1, evenly up to the last: 4 of 12 are 3, 6, 9, 12."""
    return [number * depth // count for number in range(1, count + 1)]


class Objective:
    """Holds W and picks the partners."""

    student_shows = teacher_shows = frozenset({HIDDEN})

    def __init__(self, options: Options, context: Context) -> None:
        import torch
        from torch import nn

        student, teacher = context.student_config, context.teacher_config
        if options.matched_layers > teacher.num_hidden_layers:
            raise UsageError(
                f"--matched-layers {options.matched_layers}: the teacher has "
                f"{teacher.num_hidden_layers} layers",
                where="--matched-layers",
            )
        self.weight = options.matched_weight
        self.layers = spread(options.matched_layers, teacher.num_hidden_layers)
        self.module = nn.Linear(student.hidden_size, teacher.hidden_size, bias=False)
        with torch.no_grad():
            self.module.weight.copy_(torch.eye(teacher.hidden_size, student.hidden_size))

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The summed distance of one batch."""
        mask = real_tokens(batch, student.hidden[-1])
        mapped = [self.module(hidden) for hidden in student.hidden[1:]]
        total = sum(
            min(
                (hidden_distance(own, teacher.hidden[layer], mask) for own in mapped),
                key=lambda distance: distance.detach().item(),
            )
            for layer in self.layers
        )
        return Loss(self.weight * total, {"matched_layers": total.detach()})
