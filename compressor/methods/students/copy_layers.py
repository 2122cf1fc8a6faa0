"""A shallower student that starts as a copy of some of its teacher's layers.

V. Sanh, L. Debut, J. Chaumond, T. Wolf: DistilBERT, 2019, arXiv 1910.01108 (initialisation);
the layer choice for other depths is the even spread that reproduces the authors' lists.

    teacher layer of student layer i = round(i (N - 1) / (M - 1)),  i = 0 ... M - 1

with N teacher and M student layers, rounding halves to even: 12 -> 6 gives 0,2,4,7,9,11 and
6 -> 3 gives 0,2,5. Embeddings, pooler and head are copied too. Dropping the token-type embeddings
and the pooler, as DistilBERT does, is left to students of another family.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.methods.contract import option
from compressor.model.layers import only_stack
from compressor.model.surgery import keep_layers

if TYPE_CHECKING:
    from compressor.model.load import Loaded

VERBS = ("distill",)


@dataclass(frozen=True)
class Options:
    """How many layers the student keeps, and which."""

    layers: int = option(
        0,
        "number of layers of the student; 0 for half of the teacher's",
        low=0,
        source="DistilBERT",
    )
    layer_map: str = option(
        "", "teacher layers to copy, 0-based and comma-separated (0,2,5), instead of an even spread"
    )


def spread(teacher_layers: int, student_layers: int) -> list[int]:
    """The teacher layer (0-based) that each student layer copies, evenly spread.

    Args:
        teacher_layers: N, depth of the teacher.
        student_layers: M, depth of the student, 1 <= M <= N.
    """
    if student_layers == 1:
        return [0]
    return [
        round(index * (teacher_layers - 1) / (student_layers - 1))
        for index in range(student_layers)
    ]


def chosen_layers(teacher_layers: int, options: Options) -> list[int]:
    """The layers that `options` ask for.

    Raises:
        UsageError: more layers than the teacher has, or a map that is not a list of its layers.
    """
    if options.layer_map:
        try:
            chosen = [int(part) for part in options.layer_map.split(",")]
        except ValueError:
            raise UsageError(
                f"--layer-map {options.layer_map} is not a list of numbers such as 0,2,5"
            ) from None
        if not all(0 <= index < teacher_layers for index in chosen):
            raise UsageError(
                f"--layer-map {options.layer_map}: the teacher has {teacher_layers} layers, "
                f"0 to {teacher_layers - 1}"
            )
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"--layer-map {options.layer_map} names a layer twice")
        return chosen
    wanted = options.layers or max(1, teacher_layers // 2)
    if wanted > teacher_layers:
        raise UsageError(f"--layers {wanted}: the teacher has {teacher_layers} layers")
    return spread(teacher_layers, wanted)


def build(teacher: Loaded, options: Options) -> Loaded:
    """A copy of the teacher with only the chosen layers."""
    _, stack = only_stack(teacher.model)
    kept = chosen_layers(len(stack), options)
    student = copy.deepcopy(teacher.model)
    keep_layers(student, kept)
    return teacher.with_model(student)
