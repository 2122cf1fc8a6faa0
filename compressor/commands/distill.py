"""`distill`: train a smaller student to answer like its teacher."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.checkpoint.folder import Checkpoint, refuse_quantized
from compressor.commands.job import Job, open_model
from compressor.commands.objectives import (
    compatible,
    learns_unlabelled,
    needs_answers,
    refuse_misplaced,
)
from compressor.commands.options import MODEL_HELP, DataOptions, Shared
from compressor.commands.slots import MODIFIERS, Methods, Picked, Slot, record_together
from compressor.commands.teachers import keeping_of, refuse_headless, refuse_reordered
from compressor.commands.training import (
    bytes_for_training,
    data_for_training,
    publish_trained,
    refuse_unjudged,
    train_model,
    training_record,
)
from compressor.errors import UsageError
from compressor.methods.students.smaller import SHAPE_FLAGS
from compressor.model.tasks import labels_of, task_of
from compressor.train.options import TeacherOptions, TrainingOptions

if TYPE_CHECKING:
    from compressor.model.load import Loaded

SLOTS = (
    Slot(
        "--method",
        ("objectives",),
        "soft_labels",
        "what the student learns from the teacher; repeat it to add losses up",
        many=True,
        default_with=tuple((flag, "minilm_v2,soft_labels") for flag in SHAPE_FLAGS),
    ),
    Slot(
        "--student",
        ("students",),
        "copy_layers",
        "how the student is made, or a checkpoint to start it from",
        or_model=True,
        default_with=tuple((flag, "smaller") for flag in SHAPE_FLAGS),
    ),
    MODIFIERS,
)


def run(
    teacher: Annotated[list[str], typer.Argument(metavar="TEACHER...", help=MODEL_HELP)],
    *,
    data: DataOptions,
    training: TrainingOptions,
    teaching: TeacherOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    teacher_weights: Annotated[
        str, typer.Option(help="weights of several teachers' logits (2,1) [default: all alike]")
    ] = "",
    must_learn: Annotated[
        bool, typer.Option("--must-learn", help="exit 4 if no better than a guess")
    ] = False,
) -> None:
    """Train a smaller student to answer like its teacher, or like several.

    compressor distill teacher --layers 3 --data reviews/ --epochs 6 -o student
    """
    modifiers, training = compatible(methods.all("with"), training)
    builder = methods.all("student")
    weights = shares(teacher_weights, len(teacher))
    student = "" if builder else methods.typed["student"]
    models = open_models(teacher, student, shared)
    objectives = objectives_for(models, methods)
    answers = needs_answers(objectives)
    labels, unlabelled = labels_of(models["teacher"]), learns_unlabelled(objectives)
    dataset = data_for_training(data, labels, unlabelled=unlabelled)
    refuse_misplaced(objectives, modifiers, dataset)
    refuse_unjudged(dataset, must_learn=must_learn)
    job = Job(
        verb="distill",
        words=words,
        shared=shared,
        models=models,
        record={
            **record_together(objectives),
            "student": builder[0].record() if builder else models["student"].name,
            "teacher_weights": weights,
            "with": [picked.record() for picked in modifiers],
            **training_record(training),
        },
        dataset=dataset,
    )
    keeping = keeping_of(job, teaching, objectives, weights, on_long=training.on_long)
    if not job.begin(needed_bytes=bytes_for_training(models["teacher"], modifiers)):
        return
    with job.at_work():
        teachers = load_teachers(job, answers)
        student = make_student(job, builder, teachers[0])
        trained = train_model(
            job,
            student,
            dataset,
            training,
            objectives=objectives,
            modifiers=modifiers,
            teachers=list(zip(teachers, weights, strict=True)),
            keeping=keeping,
        )
        publish_trained(job, student, trained, dataset, must_learn=must_learn)


def open_models(teachers: list[str], student: str, shared: Shared) -> dict[str, Checkpoint]:
    """The checkpoints of a distillation by their roles, each found fit for it.

    Args:
        teachers: as typed.
        student: as typed; empty where a method makes it.
        shared: the shared flags.

    Raises:
        InputError: one is missing, broken or quantized.
    """
    models = {
        f"teacher{number or ''}": open_model(reference, shared)
        for number, reference in enumerate(teachers)
    }
    if student:
        models["student"] = open_model(student, shared)
    for checkpoint in models.values():
        refuse_quantized(checkpoint, "distill")
    return models


def load_teachers(job: Job, answers: bool) -> list[Loaded]:
    """The teachers of a job, with the head of its task where they have one.

    Without `answers` nothing asks for a head, and a language model's would only cost time.
    """
    from compressor.model.load import load

    task = job.dataset.task

    def head(checkpoint: Checkpoint) -> str | None:
        has_one = task.labelled and task_of(checkpoint) == task.name
        return task.name if answers or has_one else None

    return [load(one, head(one)) for role, one in job.models.items() if role != "student"]


def make_student(job: Job, builder: list[Picked], teacher: Loaded) -> Loaded:
    """The student that a method makes or a checkpoint holds, the same for the same seed."""
    if not builder:
        return load_student(job.models["student"], teacher, job.shared.seed)
    import torch

    torch.manual_seed(job.shared.seed)
    return builder[0].method.module.build(teacher, builder[0].options)


def objectives_for(models: dict[str, Checkpoint], methods: Methods) -> list[Picked]:
    """The objectives that were named, or the defaults that teachers without a head allow.

    Raises:
        InputError: an objective looks at answers that a teacher has no head to give.
    """
    chosen = methods.all("method")
    if not methods.typed["method"] and task_of(models["teacher"]) is None:
        chosen = [one for one in chosen if not needs_answers([one])] or chosen
    for role, checkpoint in models.items():
        if role != "student" and needs_answers(chosen):
            refuse_headless(checkpoint)
    return chosen


def shares(text: str, count: int) -> list[float]:
    """The weights of `count` teachers.

    Raises:
        UsageError: not one number above zero for each teacher.
    """
    if not text:
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != count or not all(0 < weight < math.inf for weight in weights):
        raise UsageError(
            f"--teacher-weights {text}: expected {count} numbers above 0, one for each teacher",
            where="--teacher-weights",
        )
    return weights


def load_student(checkpoint: Checkpoint, teacher: Loaded, seed: int) -> Loaded:
    """A student from its own checkpoint, with the teacher's classes.

    Raises:
        InputError: its head has the same classes in another order.
    """
    from compressor.model.load import load

    refuse_reordered(teacher.checkpoint, checkpoint)
    return load(
        checkpoint, teacher.task, labels=teacher.checkpoint.labels, new_head=True, seed=seed
    )
