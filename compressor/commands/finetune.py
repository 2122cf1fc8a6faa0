"""`finetune`: train a checkpoint on a task."""

from __future__ import annotations

from typing import Annotated

import typer

from compressor.checkpoint.folder import Checkpoint, refuse_quantized
from compressor.commands.domains import leave_each_out
from compressor.commands.job import Job, open_model
from compressor.commands.objectives import compatible, refuse_misplaced
from compressor.commands.options import MODEL_HELP, DataOptions, Shared
from compressor.commands.slots import MODIFIERS, OBJECTIVE, Methods, record_together
from compressor.commands.teachers import keeping_of, refuse_teacherless
from compressor.commands.training import (
    bytes_for_training,
    data_for_training,
    publish_trained,
    refuse_unjudged,
    train_model,
    training_record,
)
from compressor.data.dataset import Dataset
from compressor.errors import InputError
from compressor.model.tasks import labels_of
from compressor.train.options import TeacherOptions, TrainingOptions

SLOTS = (OBJECTIVE, MODIFIERS)


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    data: DataOptions,
    training: TrainingOptions,
    teaching: TeacherOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    teacher: Annotated[str, typer.Option(help="a checkpoint to learn from besides")] = "",
    must_learn: Annotated[
        bool, typer.Option("--must-learn", help="exit 4 if no better than a guess")
    ] = False,
    domains: Annotated[
        bool,
        typer.Option("--domains", help="train without each domain in turn, and test on it"),
    ] = False,
) -> None:
    """Train a checkpoint on a task.

    compressor finetune bert-base-uncased-folder --data reviews/ --epochs 2 -o teacher

    compressor finetune teacher --data reviews/ --domains --domain-column product -o sweep
    """
    if domains:
        leave_each_out(words, open_model(model, shared), data, training, shared)
        return
    objectives = methods.all("objective")
    modifiers, training = compatible(methods.all("with"), training)
    refuse_teacherless(objectives, teacher)
    models = _opened(model, teacher, shared)
    dataset = data_in_the_heads_order(data, models["model"])
    refuse_misplaced(objectives, modifiers, dataset)
    refuse_unjudged(dataset, must_learn=must_learn)
    job = Job(
        verb="finetune",
        words=words,
        shared=shared,
        models=models,
        record={
            **record_together(objectives),
            "with": [picked.record() for picked in modifiers],
            **training_record(training),
        },
        dataset=dataset,
    )
    keeping = keeping_of(job, teaching, objectives, [1.0], on_long=training.on_long)
    if not job.begin(needed_bytes=bytes_for_training(models["model"], modifiers)):
        return
    with job.at_work():
        from compressor.model.load import load

        task = dataset.task.name
        loaded = load(models["model"], task, labels=dataset.labels, new_head=True, seed=shared.seed)
        taught = [(load(models["teacher"], task), 1.0)] if teacher else []
        trained = train_model(
            job,
            loaded,
            dataset,
            training,
            objectives=objectives,
            modifiers=modifiers,
            teachers=taught,
            keeping=keeping,
        )
        publish_trained(job, loaded, trained, dataset, must_learn=must_learn)


def _opened(model: str, teacher: str, shared: Shared) -> dict[str, Checkpoint]:
    """The checkpoints by role."""
    models = {"model": open_model(model, shared)}
    if teacher:
        models["teacher"] = open_model(teacher, shared)
    for checkpoint in models.values():
        refuse_quantized(checkpoint, "finetune")
    return models


def data_in_the_heads_order(data: DataOptions, checkpoint: Checkpoint) -> Dataset:
    """The rows, with classes in the order of the checkpoint's head if it has these classes.

    Raises:
        InputError: the rows are broken.
    """
    known = labels_of(checkpoint)
    if known:
        try:
            return data_for_training(data, model_labels=known)
        except InputError:
            # Either other classes, which get a head of their own, or rows that are refused below.
            pass
    return data_for_training(data)
