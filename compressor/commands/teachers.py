"""What a teacher must have, and must have in common with its student."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compressor import console
from compressor.checkpoint.folder import Checkpoint
from compressor.commands.job import Job
from compressor.commands.slots import Picked
from compressor.data.tasks import has_classes
from compressor.errors import InputError, UsageError
from compressor.model.tasks import labels_of, task_of
from compressor.train.options import TeacherOptions, parse_size

if TYPE_CHECKING:
    from compressor.data.tasks import Task
    from compressor.model.load import Loaded
    from compressor.train.cache import Keeping

UNNAMED = re.compile(r"LABEL_\d+")
# Another version may round, or cut a text, in another way, and the record names the versions.
LIBRARIES = ("torch", "transformers", "tokenizers")


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
    """Refuse a pair whose classes do not mean the same.

    Raises:
        InputError: with both lists of classes.
    """
    if not has_classes(student.task):
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


def reads_own_tokens(
    teacher: Loaded, student: Loaded, objectives: Sequence[Picked], task: Task
) -> bool:
    """Whether the teacher has another tokenizer, or image format, and must read rows by that one.

    That is possible where every method compares answers to whole rows and nothing else.

    Args:
        teacher: with its tokenizer or image format.
        student: with its own.
        objectives: what training minimises.
        task: of the rows.

    Raises:
        InputError: a method compares the two token by token; names the first ids that differ.
    """
    text = _unlike_readers(teacher, student)
    if not text:
        return False
    taught = [picked for picked in objectives if picked.method.module.NEEDS_TEACHER]
    bound = [p.name for p in taught if not getattr(p.method.module, "ANY_TOKENIZER", False)]
    where = str(student.checkpoint.path)
    if not task.labelled:
        raise InputError(
            f"{text}; on {task.name} answers are compared token by token",
            hint="use a student of the teacher's family",
            where=where,
        )
    if bound:
        raise InputError(
            f"{text}; {' and '.join(bound)} compares the two token by token",
            hint="use a student of the teacher's family, or --method soft_labels alone",
            where=where,
        )
    console.note(f"{text}; {teacher.checkpoint.name} reads the rows by its own")
    return True


def _unlike_readers(teacher: Loaded, student: Loaded) -> str:
    """A sentence about how the two read rows differently; empty where they read alike."""
    if student.tokenizer is None or teacher.tokenizer is None:
        formats = [
            f"{one.reader.images}, patches of {one.model.config.patch_size}"
            for one in (teacher, student)
        ]
        unlike = formats[0] != formats[1]
        return f"teacher and student read images as {' and as '.join(formats)}" * unlike
    first, second = teacher.tokenizer.get_vocab(), student.tokenizer.get_vocab()
    differing = sorted(
        piece for piece in {*first, *second} if first.get(piece) != second.get(piece)
    )
    if not differing:
        return ""
    shown = ", ".join(
        f"{piece!r} is {first.get(piece)} and {second.get(piece)}" for piece in differing[:3]
    )
    return f"the tokenizers of teacher and student differ in {len(differing)} pieces: {shown}"


def keeping_of(
    job: Job,
    teaching: TeacherOptions,
    objectives: Sequence[Picked],
    weights: Sequence[float],
    *,
    on_long: str,
) -> Keeping:
    """How the teachers' answers are kept, checked before any work.

    Args:
        job: its models, data and target.
        teaching: the flags.
        objectives: what training minimises.
        weights: of the teachers, in their order.
        on_long: what is done with long rows.

    Raises:
        UsageError: a flag makes no sense here.
        InputError: the folder holds other answers, or something else, or is an input or output.
    """
    from compressor.train.cache import Keeping, refuse_unlike

    limit = parse_size(teaching.cache_limit, "--cache-limit")
    teachers = {role: one for role, one in job.models.items() if role.startswith("teacher")}
    asks = teachers and any(picked.method.module.NEEDS_TEACHER for picked in objectives)
    if not asks:
        flag = "--teacher-cache" if teaching.teacher_cache else "--cache-hidden"
        if teaching.teacher_cache or teaching.cache_hidden:
            raise UsageError(f"{flag}: no teacher is asked for anything here", where=flag)
        return Keeping(limit=limit)
    step = job.step()
    bound_to = {
        "teachers": {
            role: {
                "weights": one.weights_hash,
                "config": _config_hash(one),
                "share": weight / sum(weights),
            }
            for (role, one), weight in zip(teachers.items(), weights, strict=True)
        },
        "data": job.dataset.hash,
        "text_columns": list(job.dataset.text_columns),
        "split": "train",
        "on_long": on_long,
        "versions": {name: step["versions"][name] for name in LIBRARIES},
    }
    if not teaching.teacher_cache:
        return Keeping(None, limit, teaching.cache_hidden, bound_to)
    folder = Path(teaching.teacher_cache)
    _refuse_place(folder, job)
    refuse_unlike(folder, bound_to)
    return Keeping(folder, limit, teaching.cache_hidden, bound_to)


def _config_hash(checkpoint: Checkpoint) -> str:
    text = json.dumps(checkpoint.config, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _refuse_place(folder: Path, job: Job) -> None:
    """Refuse a folder inside or around an input or the output, or without a parent.

    Raises:
        InputError: it names the other folder.
    """
    place = Path(os.path.realpath(folder))
    for other in (job.target, *(checkpoint.path for checkpoint in job.models.values())):
        taken = Path(os.path.realpath(other))
        if place == taken or place in taken.parents or taken in place.parents:
            raise InputError(
                f"--teacher-cache {folder} is, holds or lies in {other}, which this run "
                f"{'writes' if other == job.target else 'reads'}",
                hint="give it a folder of its own",
                where="--teacher-cache",
            )
    if not place.parent.is_dir():
        raise InputError(
            f"--teacher-cache {folder}: there is no folder {folder.parent}",
            hint=f"mkdir -p {folder.parent}",
            where="--teacher-cache",
        )
