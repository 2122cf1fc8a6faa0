"""`distill`: train a smaller student to answer like its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compressor.checkpoint.folder import Checkpoint, refuse_quantized
from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, DataOptions, Shared
from compressor.commands.slots import MODIFIERS, Methods, Slot
from compressor.commands.training import (
    bytes_for_training,
    data_for_training,
    publish_trained,
    train_model,
    training_record,
)
from compressor.errors import InputError
from compressor.model.tasks import labels_of, task_of
from compressor.train.options import TrainingOptions

if TYPE_CHECKING:
    from compressor.model.load import Loaded

SLOTS = (
    Slot("--method", ("objectives",), "soft_labels", "what the student learns from the teacher"),
    Slot(
        "--student",
        ("students",),
        "copy_layers",
        "how the student is made, or a checkpoint to start it from",
        or_model=True,
    ),
    MODIFIERS,
)


def run(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help=MODEL_HELP)],
    *,
    data: DataOptions,
    training: TrainingOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    must_learn: Annotated[
        bool, typer.Option("--must-learn", help="exit 4 if no better than the majority class")
    ] = False,
) -> None:
    """Train a smaller student to answer like its teacher.

    compressor distill teacher --layers 3 --data reviews/ --epochs 6 -o student
    """
    objective, modifiers = methods.one("method"), methods.all("with")
    builder = methods.all("student")
    models = {"teacher": open_model(teacher, shared)}
    if not builder:
        models["student"] = open_model(methods.typed["student"], shared)
    for checkpoint in models.values():
        refuse_quantized(checkpoint, "distill")
    refuse_headless(models["teacher"])
    dataset = data_for_training(data, model_labels=labels_of(models["teacher"]))
    job = Job(
        verb="distill",
        words=words,
        shared=shared,
        models=models,
        record={
            "method": objective.name,
            **objective.record()["options"],
            "student": builder[0].record() if builder else models["student"].name,
            "with": [picked.record() for picked in modifiers],
            **training_record(training),
        },
        dataset=dataset,
    )
    if not job.begin(needed_bytes=bytes_for_training(models["teacher"])):
        return
    with job.at_work():
        from compressor.model.load import load

        loaded_teacher = load(models["teacher"], dataset.task.name)
        if builder:
            student = builder[0].method.module.build(loaded_teacher, builder[0].options)
        else:
            student = load_student(models["student"], loaded_teacher, shared.seed)
        trained = train_model(
            job,
            student,
            dataset,
            training,
            objective=objective,
            modifiers=modifiers,
            teacher=loaded_teacher,
        )
        publish_trained(job, student, trained, dataset, must_learn=must_learn)


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


def load_student(checkpoint: Checkpoint, teacher: Loaded, seed: int) -> Loaded:
    """A student from its own checkpoint, with the teacher's classes.

    Raises:
        InputError: its tokenizer splits text into other ids than the teacher's.
    """
    from compressor.model.load import load

    student = load(
        checkpoint, teacher.task, labels=teacher.checkpoint.labels, new_head=True, seed=seed
    )
    refuse_other_tokenizer(teacher, student)
    own, theirs = student.model.config.id2label, teacher.model.config.id2label
    if teacher.task == "text-classification" and own != theirs:
        raise InputError(
            f"teacher and student order their classes differently: {theirs} and {own}",
            where=str(checkpoint.path),
        )
    return student


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
