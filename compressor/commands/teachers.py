"""What a teacher must have, and must have in common with its student."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.checkpoint.folder import Checkpoint
from compressor.commands.slots import Picked
from compressor.errors import InputError, UsageError
from compressor.model.tasks import labels_of, task_of

if TYPE_CHECKING:
    from compressor.model.load import Loaded

UNNAMED = re.compile(r"LABEL_\d+")


def refuse_teacherless(objectives: Sequence[Picked], teacher: str) -> None:
    """Refuse an objective that learns from a teacher where none is named.

    Raises:
        UsageError: names the objective.
    """
    for picked in objectives:
        if picked.method.module.NEEDS_TEACHER and not teacher:
            raise UsageError(f"{picked.name} needs a teacher", hint="add --teacher MODEL")


def refuse_headless(teacher: Checkpoint) -> None:
    """Refuse a teacher that has no head to answer with.

    Raises:
        InputError: the config names a bare model.
    """
    if task_of(teacher) is None:
        raise InputError(
            f"{teacher.name} has no task head ({teacher.architecture}), so it has no answers to "
            "learn from",
            hint=f"train one first: compressor finetune {teacher.path} --data DATA",
            where=str(teacher.path),
        )


def refuse_reordered(teacher: Checkpoint, student: Checkpoint) -> None:
    """Refuse a student whose own head has the teacher's classes in another order.

    Raises:
        InputError: with both orders.
    """
    first, second = labels_of(teacher) or (), labels_of(student) or ()
    if first != second and sorted(first) == sorted(second):
        raise _other_classes(first, second, student)


def refuse_misfit(teacher: Loaded, student: Loaded) -> None:
    """Refuse a pair whose token ids or whose classes do not mean the same.

    Raises:
        InputError: names the first ids, or the classes, that differ.
    """
    refuse_other_tokenizer(teacher, student)
    if student.task != "text-classification":
        return
    first, second = _classes(teacher), _classes(student)
    unnamed = any(all(map(UNNAMED.fullmatch, names)) for names in (first, second))
    if first != second and not (unnamed and len(first) == len(second)):
        raise _other_classes(first, second, teacher.checkpoint)


def _classes(loaded: Loaded) -> tuple[str, ...]:
    names = loaded.model.config.id2label
    return tuple(names[index] for index in sorted(names))


def _other_classes(
    teacher: tuple[str, ...], student: tuple[str, ...], checkpoint: Checkpoint
) -> InputError:
    return InputError(
        f"the teacher's classes are {', '.join(teacher)}, the student's {', '.join(student)}: "
        "their answers would be compared class by class, and mean different things",
        hint="train both on data that names its classes alike: compressor finetune",
        where=str(checkpoint.path),
    )


def refuse_other_tokenizer(teacher: Loaded, student: Loaded) -> None:
    """Refuse a pair whose token ids mean different pieces of text.

    Raises:
        InputError: names the first ids that differ.
    """
    first = teacher.tokenizer.get_vocab()
    second = student.tokenizer.get_vocab()
    if first == second:
        return
    differing = sorted(
        piece for piece in {*first, *second} if first.get(piece) != second.get(piece)
    )
    shown = ", ".join(
        f"{piece!r} is {first.get(piece)} and {second.get(piece)}" for piece in differing[:3]
    )
    raise InputError(
        f"the tokenizers of teacher and student differ in {len(differing)} pieces: {shown}",
        hint="use a student of the teacher's family; every method here works on token ids",
        where=str(student.checkpoint.path),
    )
