"""`benchmark`: accuracy, size and latency of models against a baseline, with gates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import console
from compressor.checkpoint.folder import Checkpoint
from compressor.checkpoint.lineage import baseline_of
from compressor.checkpoint.store import check_target, locked
from compressor.checkpoint.training import trainings
from compressor.commands.job import command_line, open_model, print_folder
from compressor.commands.judged import is_made, publish_report, refuse_unjudgeable
from compressor.commands.landscape import landscapes, refuse_flat
from compressor.commands.measure_options import MeasureOptions, shapes_for
from compressor.commands.options import MODEL_HELP, DataOptions, Shared
from compressor.commands.scores import add_scores, refuse_disagreements, write_disagreements
from compressor.commands.stored import (
    StoredBaseline,
    columns_of,
    refuse_other_rows,
    stored_baseline,
)
from compressor.data.dataset import Dataset, open_dataset
from compressor.data.domains import domains_of
from compressor.data.splits import refuse_overlap, split_for_evaluation
from compressor.errors import InputError, UsageError
from compressor.measure import gates as judging
from compressor.measure.words import unique_names
from compressor.methods.option import refuse_idle
from compressor.model.reader import refuse_unreadable
from compressor.model.tasks import labels_of, task_of

if TYPE_CHECKING:
    from compressor.commands.candidates import Candidate

READ_ROWS = 200


def run(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODEL_HELP)],
    *,
    data: DataOptions,
    measure: MeasureOptions,
    shared: Shared,
    words: list[str],
    baseline: Annotated[
        str,
        typer.Option(
            help="what to compare with, also a stored report.json (for accuracy and size alone); "
            "found through the lineage if absent"
        ),
    ] = "",
) -> None:
    """Measure accuracy, size and latency of models against a baseline, with gates.

    Without --data only size and latency are measured.

    compressor benchmark student exported --baseline teacher --data reviews/ --max-drop 2
    """
    gates = judging.Gates(
        **{name: getattr(measure, name) for name in judging.Gates.__dataclass_fields__}
    )
    opened = [open_model(model, shared) for model in models]
    stored = stored_baseline(baseline)
    first = [] if stored else [_baseline(baseline, opened, shared)]
    named = _named(first, opened)
    checkpoints = list(named.values())
    shapes = shapes_for(checkpoints, measure)
    dataset = _dataset(data, checkpoints)
    split = split_for_evaluation(dataset, measure.split) if dataset else ""
    if data.no_overlap:
        if split == "train":
            raise UsageError("--no-overlap does nothing: training rows are scored", where="--split")
        refuse_overlap(dataset, split)
    if stored:
        stored = stored.apart_from(named)
        refuse_other_rows(stored, dataset, split, measure.max_length)
    refuse_unjudgeable(gates, checkpoints, dataset, measure.junit, stored)
    refuse_flat(measure, dataset)
    if measure.disagreements:
        refuse_disagreements(Path(measure.disagreements), dataset, stored is not None)
    target = Path(shared.output or f"{opened[-1].name}-benchmark")
    inputs = [checkpoint.path for checkpoint in checkpoints]
    fingerprint = _fingerprint(named, dataset, measure, shared, stored)
    if shared.reuse and is_made(target / "report.json", fingerprint):
        console.note(f"benchmark: {target} is already made by this command")
        return print_folder(target, {"verb": "benchmark", "reused": True})
    check_target(target, force=shared.force, inputs=inputs, needed_bytes=1_000_000)
    if shared.dry_run:
        console.note(f"would measure {', '.join(named)} into {target}")
        return None
    with locked(target):
        report = measure_all(named, dataset, measure, shapes, words, shared, stored)
        report["inputs"] = fingerprint
        report["training"] = trainings(named)
        report["gates"] = judging.check(report, gates) if gates.active() else []
        publish_report(report, target, force=shared.force, junit=measure.junit)
    return None


def _baseline(named: str, opened: list[Checkpoint], shared: Shared) -> Checkpoint:
    """The model that the others are compared with: named, from the lineage, or the first."""
    if named:
        return open_model(named, shared)
    for checkpoint in opened:
        found = baseline_of(checkpoint)
        if found is None:
            continue
        weights, folder = found
        if folder is not None:
            return open_model(str(folder), shared)
        console.warn(
            f"the lineage of {checkpoint.name} starts from weights {weights[:19]}..., which lie "
            f"nowhere near it; comparing with {opened[0].name} instead (name it: --baseline)"
        )
    return opened[0]


def _named(first: list[Checkpoint], opened: list[Checkpoint]) -> dict[str, Checkpoint]:
    """The baseline, where a folder is one, and the models, by what the report calls them.

    Raises:
        InputError: a model is given twice, or two cannot be told apart.
    """
    places = [checkpoint.path.resolve() for checkpoint in opened]
    for index, place in enumerate(places):
        if place in places[:index]:
            again = opened[places.index(place)].path
            raise InputError(
                f"{opened[index].path} and {again} are the same folder", hint="name it once"
            )
    every = list({each.path.resolve(): each for each in (*first, *opened)}.values())
    names = unique_names([each.name for each in every], [each.path for each in every])
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"two models are called {doubled}", hint="rename one of their folders")
    return dict(zip(names, every, strict=True))


def _dataset(data: DataOptions, checkpoints: list[Checkpoint]) -> Dataset | None:
    """The rows to score on; None without `--data`.

    Raises:
        InputError: the models differ in task or classes, or have no head to score.
        UsageError: flags about rows that are not there.
    """
    if not data.data:
        refuse_idle(data, [field.name for field in fields(data)], "without --data")
        return None
    tasks = {checkpoint.name: task_of(checkpoint) for checkpoint in checkpoints}
    if len(set(tasks.values())) > 1 or None in tasks.values():
        shown = ", ".join(f"{name}: {task or 'no head'}" for name, task in tasks.items())
        raise InputError(f"only models of one task can be scored together ({shown})")
    classes = {checkpoint.name: labels_of(checkpoint) for checkpoint in checkpoints}
    if len(set(classes.values())) > 1:
        shown = "; ".join(f"{name}: {', '.join(c or ())}" for name, c in classes.items())
        raise InputError(f"the models order or name their classes differently: {shown}")
    dataset = open_dataset(
        data.data,
        task=data.task or next(iter(tasks.values())),
        text_columns=data.text_columns or None,
        image_column=data.image_column or None,
        label_column=data.label_column or None,
        model_labels=next(iter(classes.values())),
        split_for_training="test",
        domains=domains_of(data.domain_column, data.domain, data.without_domain),
    )
    for checkpoint in checkpoints:
        refuse_unreadable(checkpoint, dataset.task, dataset.source.name)
    return dataset


def measure_all(
    named: Mapping[str, Checkpoint],
    dataset: Dataset | None,
    measure: MeasureOptions,
    shapes: list[tuple[int, int]],
    words: list[str],
    shared: Shared,
    stored: StoredBaseline | None,
) -> dict[str, Any]:
    """Open, score and time every model; the first is the baseline, or the stored one is."""
    from compressor.commands.candidates import open_candidate, outputs_of
    from compressor.commands.timing import Timed, cores_for, time_candidates
    from compressor.measure.machine import add_load_after, machine_facts
    from compressor.measure.report import build_report
    from compressor.model.devices import common_device, gpu_facts

    threads = measure.threads or len(os.sched_getaffinity(0))
    graphs = any(checkpoint.runtime == "onnxruntime" for checkpoint in named.values())
    device = common_device(shared.device, graphs=graphs)
    machine = {**machine_facts(threads, cores_for(threads)), "gpu": gpu_facts(device)}
    split = split_for_evaluation(dataset, measure.split) if dataset else ""
    task, facts, answers, timed = None, [], [], []
    doing = f"scoring on {split}" if dataset else "loading"
    with console.Progress(doing, len(named)) as progress:
        for name, checkpoint in named.items():
            candidate = open_candidate(checkpoint, name, threads, device, measure.precision)
            facts.append(candidate.facts())
            timed.append(Timed.of(candidate))
            if dataset is not None:
                task = task or _task_facts(dataset, split, candidate, measure)
                answers.append(outputs_of(candidate, dataset, split, measure.max_length))
            progress.advance()
    if dataset is not None:
        add_scores(facts, answers, dataset, shared.seed, paired=stored is None)
        if measure.disagreements:
            write_disagreements(Path(measure.disagreements), dataset, split, list(named), answers)
        if measure.landscape:
            drawn = landscapes(named, dataset, split, measure, device, shared.seed)
            for entry in facts:
                entry["landscape"] = drawn.get(entry["name"])
    times = time_candidates(
        timed,
        shapes,
        rounds=measure.rounds,
        starts=measure.starts,
        threads=threads,
        scaling=measure.scaling,
    )
    for entry in facts:
        entry.update(times[entry["name"]])
        entry.setdefault("accuracy", None)
    if stored:
        accuracy = stored.model["accuracy"] if dataset else None
        facts.insert(0, {**stored.model, "accuracy": accuracy})
    baseline = facts[0]["name"]
    return build_report(
        add_load_after(machine), task, baseline, facts, command_line(words), shared.seed
    )


def _task_facts(
    dataset: Dataset, split: str, candidate: Candidate, measure: MeasureOptions
) -> dict[str, Any]:
    from compressor.commands.candidates import reading_milliseconds

    rows = islice(dataset.rows(split), READ_ROWS)
    return {
        "name": dataset.task.name,
        "data": dataset.source.name,
        "data_hash": dataset.hash,
        "split": split,
        "columns": columns_of(dataset),
        "labels": list(dataset.labels or ()),
        "metric": dataset.task.metric,
        "max_length": measure.max_length,
        "tokenise_ms_per_row": reading_milliseconds(candidate, rows),
    }


def _fingerprint(
    named: Mapping[str, Checkpoint],
    dataset: Dataset | None,
    measure: MeasureOptions,
    shared: Shared,
    stored: StoredBaseline | None,
) -> dict[str, Any]:
    """What a report that is reused must have been made from."""
    import dataclasses

    return {
        "models": {name: checkpoint.weights_hash for name, checkpoint in named.items()},
        "stored_baseline": stored.hash if stored else None,
        "data": dataset.hash if dataset else None,
        "task": dataset.task.name if dataset else None,
        "columns": columns_of(dataset) if dataset else None,
        "options": dataclasses.asdict(measure),
        "seed": shared.seed,
    }
