"""`prune`: remove weights, heads, neurons or layers, at once or while training."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.checkpoint.folder import Checkpoint, open_checkpoint, refuse_quantized
from compressor.commands.job import Job, open_model
from compressor.commands.objectives import (
    compatible,
    learns_unlabelled,
    refuse_misplaced,
)
from compressor.commands.options import MODEL_HELP, PACK_HELP, DataOptions, Shared, as_record
from compressor.commands.scoring import DatasetRows, validation_metrics
from compressor.commands.slots import MODIFIERS, OBJECTIVE, Methods, Slot
from compressor.commands.teachers import keeping_of, refuse_teacherless
from compressor.commands.training import (
    bytes_for_training,
    data_for_training,
    data_if_named,
    publish_trained,
    train_model,
    training_record,
)
from compressor.data.dataset import Dataset
from compressor.errors import UsageError
from compressor.methods.option import flag_of
from compressor.model.devices import choose_device
from compressor.model.rewrite import Rewriting, rewrite
from compressor.model.tasks import labels_of
from compressor.train.options import TeacherOptions, TrainingOptions

if TYPE_CHECKING:
    from compressor.train.cache import Keeping

SLOTS = (
    Slot("--method", ("modifiers", "transforms"), "gmp", "how to prune"),
    OBJECTIVE,
    MODIFIERS,
)


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    data: DataOptions,
    training: TrainingOptions,
    teaching: TeacherOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    teacher: Annotated[str, typer.Option(help="a checkpoint to learn from while pruning")] = "",
    pack: Annotated[bool, typer.Option("--pack", help=PACK_HELP)] = False,
) -> None:
    """Remove weights, heads, neurons or layers from a checkpoint, at once or while training.

    compressor prune student --method gmp --sparsity 0.8 --data reviews/ -o sparse

    compressor prune student --method magnitude --pattern 2:4 --pack -o sparse

    compressor prune student --method fisher --mac-ratio 0.5 --data reviews/ -o narrow
    """
    checkpoint = open_model(model, shared)
    refuse_quantized(checkpoint, "prune")
    if methods.one("method").method.kind == "transforms":
        refuse_unused(methods, training, teaching, teacher)
        _prune_at_once(checkpoint, data, training, shared, methods, words, pack)
    else:
        _prune_in_training(
            checkpoint, data, training, teaching, shared, methods, words, teacher, pack
        )


def refuse_unused(
    methods: Methods, training: TrainingOptions, teaching: TeacherOptions, teacher: str
) -> None:
    """Refuse the flags of a training where nothing is trained.

    Raises:
        UsageError: names them.
    """
    typed = [f"--{slot}" for slot in ("objective", "with") if methods.typed[slot]]
    typed += ["--teacher"] if teacher else []
    for options in (training, teaching):
        typed += [
            flag_of(field)
            for field in fields(options)
            # Validation rows are scored at some length, and a recipe resumes every step.
            if field.name not in ("max_length", "resume")
            and getattr(options, field.name) != field.default
        ]
    if typed:
        raise UsageError(
            f"{methods.one('method').name} prunes at once and trains nothing, so "
            f"{', '.join(typed)} would do nothing",
            hint="train afterwards: compressor finetune",
        )


def _prune_at_once(
    checkpoint: Checkpoint,
    data: DataOptions,
    training: TrainingOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    pack: bool,
) -> None:
    picked = methods.one("method")
    module, options, length = picked.method.module, picked.options, training.max_length
    needs_data = module.needs_data(options)
    dataset = data_if_named(data, labels_of(checkpoint), needed=needs_data)
    rewriting = module.rewrite(checkpoint, options) if hasattr(module, "rewrite") else None
    record = {"method": picked.name, **as_record(options), "max_length": length}
    job = Job("prune", words, shared, {"model": checkpoint}, record, dataset, pack=pack)
    if not job.begin(needed_bytes=checkpoint.disk_bytes):
        return
    with job.at_work(), TemporaryDirectory(prefix="compressor-") as scratch:
        if rewriting is not None:
            job.publish(
                lambda folder: _write_rewritten(checkpoint, rewriting, folder, dataset, length)
            )
            return
        from compressor.model.load import load_whole
        from compressor.model.save import save_model

        loaded = load_whole(checkpoint)
        loaded.model.to(choose_device(shared.device))
        rows = None
        if needs_data:
            rows = DatasetRows(dataset, loaded, length, shared.seed, Path(scratch))
        facts = module.apply(loaded, rows, options)
        metrics = validation_metrics(loaded, dataset, length) if dataset else {}
        job.publish(lambda folder: save_model(loaded, folder), metrics={**facts, **metrics})


def _write_rewritten(
    checkpoint: Checkpoint, to: Rewriting, folder: Path, dataset: Dataset | None, length: int
) -> dict[str, Any]:
    """Write a checkpoint tensor by tensor, see that it would load, and score it if there are rows.

    Raises:
        InputError: the checkpoint lacks a tensor, so that a reload would invent one.
    """
    from compressor.model.load import load_whole

    load_whole(checkpoint, values=False)
    rewrite(checkpoint, to, folder)
    written = open_checkpoint(folder, scan_values=False)
    loaded = load_whole(written, values=dataset is not None)
    metrics = validation_metrics(loaded, dataset, length) if dataset is not None else {}
    return {**to.facts(), **metrics}


def _prune_in_training(
    checkpoint: Checkpoint,
    data: DataOptions,
    training: TrainingOptions,
    teaching: TeacherOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    teacher: str,
    pack: bool,
) -> None:
    picked, objectives = methods.one("method"), methods.all("objective")
    modifiers, training = compatible([picked, *methods.all("with")], training)
    refuse_teacherless(objectives, teacher)
    models = {"model": checkpoint}
    if teacher:
        models["teacher"] = open_model(teacher, shared)
        refuse_quantized(models["teacher"], "prune")
    labels, unlabelled = labels_of(checkpoint), learns_unlabelled(objectives)
    dataset = data_for_training(data, labels, unlabelled=unlabelled)
    refuse_misplaced(objectives, modifiers, dataset)
    job = Job(
        verb="prune",
        words=words,
        shared=shared,
        models=models,
        record={
            "method": picked.name,
            **as_record(picked.options),
            "objective": [other.record() for other in objectives],
            "with": [other.record() for other in modifiers[1:]],
            **training_record(training),
        },
        dataset=dataset,
        pack=pack,
    )
    keeping = keeping_of(job, teaching, objectives, [1.0], on_long=training.on_long)
    if not job.begin(needed_bytes=bytes_for_training(checkpoint, modifiers)):
        return
    with job.at_work():
        _train_and_publish(job, dataset, training, objectives, modifiers, keeping)


def _train_and_publish(
    job: Job,
    dataset: Dataset,
    training: TrainingOptions,
    objectives: list[Any],
    modifiers: list[Any],
    keeping: Keeping,
) -> None:
    from compressor.model.layers import encoder_linears
    from compressor.model.load import load
    from compressor.model.masks import sparsity_of

    loaded = load(job.models["model"], dataset.task.name)
    teacher = job.models.get("teacher")
    trained = train_model(
        job,
        loaded,
        dataset,
        training,
        objectives=objectives,
        modifiers=modifiers,
        teachers=[(load(teacher, dataset.task.name), 1.0)] if teacher else [],
        keeping=keeping,
    )
    sparsity = sparsity_of(encoder_linears(loaded.model))
    trained.metrics["sparsity"] = sparsity
    publish_trained(job, loaded, trained, dataset)
