"""What students that copy some of their teacher's layers share: how many, and which.

    teacher layer of student layer i = round(i (N - 1) / (M - 1)),  i = 0 ... M - 1

with N teacher and M student layers, rounding halves to even, is the even spread that reproduces
the lists of DistilBERT's authors: 12 -> 6 gives 0,2,4,7,9,11 and 6 -> 3 gives 0,2,5.
"""

from __future__ import annotations

from compressor.errors import UsageError

LAYERS_HELP = "number of layers of the student; 0 for half of the teacher's"
LAYER_MAP_HELP = (
    "teacher layers to copy, 0-based and comma-separated (0,2,5), instead of an even spread"
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


def chosen_layers(teacher_layers: int, layers: int, layer_map: str) -> list[int]:
    """The teacher layers that a student copies, in its own order.

    Args:
        teacher_layers: depth of the teacher.
        layers: `--layers`; 0 for half of the teacher's.
        layer_map: `--layer-map`; empty for an even spread.

    Raises:
        UsageError: more layers than the teacher has, or a map that is not a list of its layers.
    """
    if layer_map:
        return _listed_layers(teacher_layers, layer_map)
    wanted = layers or max(1, teacher_layers // 2)
    if wanted > teacher_layers:
        raise UsageError(f"--layers {wanted}: the teacher has {teacher_layers} layers")
    return spread(teacher_layers, wanted)


def _listed_layers(teacher_layers: int, layer_map: str) -> list[int]:
    try:
        chosen = [int(part) for part in layer_map.split(",")]
    except ValueError:
        raise UsageError(
            f"--layer-map {layer_map} is not a list of numbers such as 0,2,5"
        ) from None
    if not all(0 <= index < teacher_layers for index in chosen):
        raise UsageError(
            f"--layer-map {layer_map}: the teacher has {teacher_layers} layers, "
            f"0 to {teacher_layers - 1}"
        )
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"--layer-map {layer_map} names a layer twice")
    return chosen
