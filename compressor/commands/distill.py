"""`distill`: train a smaller student to answer like its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compressor.checkpoint.folder import Checkpoint, refuse_quantized
from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, DataOptions, Shared
from compressor.commands.slots import MODIFIERS, Methods, Slot
from compressor.commands.teachers import refuse_headless, refuse_reordered
from compressor.commands.training import (
    bytes_for_training,
    data_for_training,
    publish_trained,
    refuse_unjudged,
    train_model,
    training_record,
)
from compressor.model.tasks import labels_of
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
        bool, typer.Option("--must-learn", help="exit 4 if no better than a guess")
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
    refuse_unjudged(dataset, must_learn=must_learn)
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
