"""`benchmark`: accuracy, size and latency of models against a baseline, with gates."""

from __future__ import annotations

import os
from dataclasses import dataclass
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
from compressor.commands.judged import publish_report
from compressor.commands.options import MODEL_HELP, DataOptions, Shared, parse_shapes
from compressor.commands.scores import add_scores, refuse_disagreements, write_disagreements
from compressor.data.dataset import Dataset, open_dataset
from compressor.data.splits import split_for_evaluation
from compressor.errors import InputError, UsageError
from compressor.measure import gates as judging
from compressor.methods.contract import option
from compressor.model.tasks import labels_of, task_of

if TYPE_CHECKING:
    from compressor.commands.candidates import Candidate

TOKENISED_ROWS = 200


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured, and the limits that fail the job."""

    split: str = option(
        "",
        "rows to score on; validation, or test if there is none",
        choices=("", "validation", "test", "train"),
    )
    shapes: str = option("1x32,1x128,8x64", "batch x length of the latency calls")
    rounds: int = option(30, "turns of each model at each shape", low=3)
    threads: int = option(0, "threads of each model; 0 for all cores allowed", low=0)
    max_length: int = option(128, "longest scored input in tokens", low=4)
    disagreements: str = option(
        "", "file to write the rows to whose class differs from the baseline's, as jsonl"
    )
    junit: str = option("", "file to write the gates' judgements to, as JUnit XML")
    max_drop: float | None = option(None, "gate: most points that may be lost")
    min_retention: float | None = option(None, "gate: smallest metric / baseline metric")
    min_speedup: float | None = option(None, "gate: smallest speed-up, geometric mean of shapes")
    min_compression: float | None = option(
        None, "gate: smallest baseline bytes / own bytes on disk"
    )
    max_latency_ms: float | None = option(None, "gate: longest median at the first shape")


def run(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODEL_HELP)],
    *,
    data: DataOptions,
    measure: MeasureOptions,
    shared: Shared,
    words: list[str],
    baseline: Annotated[
        str, typer.Option(help="what to compare with; found through the lineage if absent")
    ] = "",
) -> None:
    """Measure accuracy, size and latency of models against a baseline, with gates.

    Without --data only size and latency are measured.

    compressor benchmark student exported --baseline teacher --data reviews/ --max-drop 2
    """
    shapes = parse_shapes(measure.shapes, "--shapes")
    gates = judging.Gates(
        **{name: getattr(measure, name) for name in judging.Gates.__dataclass_fields__}
    )
    opened = [open_model(model, shared) for model in models]
    first = _baseline(baseline, opened, shared)
    checkpoints = list({c.path.resolve(): c for c in (first, *opened)}.values())
    dataset = _dataset(data, checkpoints)
    if dataset is not None:
        split_for_evaluation(dataset, measure.split)
    _refuse_unjudgeable(gates, checkpoints, dataset, measure.junit)
    if measure.disagreements:
        refuse_disagreements(Path(measure.disagreements), dataset)
    target = Path(shared.output or f"{opened[-1].name}-benchmark")
    inputs = [checkpoint.path for checkpoint in checkpoints]
    fingerprint = _fingerprint(checkpoints, dataset, measure, shared)
    if shared.reuse and _is_done(target, fingerprint):
        console.note(f"benchmark: {target} is already made by this command")
        return print_folder(target, {"verb": "benchmark", "reused": True})
    check_target(target, force=shared.force, inputs=inputs, needed_bytes=1_000_000)
    if shared.dry_run:
        console.note(f"would measure {', '.join(c.name for c in checkpoints)} into {target}")
        return None
    with locked(target):
        report = measure_all(checkpoints, dataset, measure, shapes, words, shared)
        report["inputs"] = fingerprint
        named = zip(unique_names(checkpoints), checkpoints, strict=True)
        report["training"] = trainings(dict(named))
        report["gates"] = judging.check(report, gates) if gates.active() else []
        publish_report(report, target, force=shared.force, junit=measure.junit)
    return None


def _refuse_unjudgeable(
    gates: judging.Gates, checkpoints: list[Checkpoint], dataset: Dataset | None, junit: str
) -> None:
    """Refuse gates that no measurement could answer, before any is made.

    Raises:
        UsageError: no gate for `--junit` to write about.
        InputError: there is nothing besides the baseline, or no rows to measure accuracy on.
    """
    active = gates.active()
    if junit and not active:
        raise UsageError("--junit writes what gates say, and there is none", where="--junit")
    if junit and not Path(junit).parent.is_dir():
        raise InputError(f"there is no folder {Path(junit).parent}", where="--junit")
    if active and len(checkpoints) == 1:
        raise InputError(
            f"{checkpoints[0].name} is its own baseline, so the gates have nothing to judge",
            hint="name a candidate, or another --baseline",
        )
    if dataset is None and {"max_drop", "min_retention"} & set(active):
        raise InputError(
            "--max-drop and --min-retention judge accuracy, and there are no rows to measure it on",
            hint="add --data DATA",
        )


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


def _dataset(data: DataOptions, checkpoints: list[Checkpoint]) -> Dataset | None:
    """The rows to score on; None without `--data`.

    Raises:
        InputError: the models differ in task or classes, or have no head to score.
    """
    if not data.data:
        return None
    tasks = {checkpoint.name: task_of(checkpoint) for checkpoint in checkpoints}
    if len(set(tasks.values())) > 1 or None in tasks.values():
        shown = ", ".join(f"{name}: {task or 'no head'}" for name, task in tasks.items())
        raise InputError(f"only models of one task can be scored together ({shown})")
    classes = {checkpoint.name: labels_of(checkpoint) for checkpoint in checkpoints}
    if len(set(classes.values())) > 1:
        shown = "; ".join(f"{name}: {', '.join(c or ())}" for name, c in classes.items())
        raise InputError(f"the models order or name their classes differently: {shown}")
    return open_dataset(
        data.data,
        task=data.task or next(iter(tasks.values())),
        text_columns=data.text_columns or None,
        label_column=data.label_column or None,
        model_labels=next(iter(classes.values())),
        split_for_training="test",
    )


def measure_all(
    checkpoints: list[Checkpoint],
    dataset: Dataset | None,
    measure: MeasureOptions,
    shapes: list[tuple[int, int]],
    words: list[str],
    shared: Shared,
) -> dict[str, Any]:
    """Open, score and time every model; the first is the baseline."""
    from compressor.commands.candidates import open_candidate, outputs_of
    from compressor.measure.latency import measure_in_turns
    from compressor.measure.machine import add_load_after, machine_facts
    from compressor.measure.report import build_report

    threads = measure.threads or len(os.sched_getaffinity(0))
    machine = machine_facts(threads)
    names = unique_names(checkpoints)
    candidates = [
        open_candidate(checkpoint, name, threads, shared.device)
        for checkpoint, name in zip(checkpoints, names, strict=True)
    ]
    facts = [candidate.facts() for candidate in candidates]
    task = None
    if dataset is not None:
        split = split_for_evaluation(dataset, measure.split)
        task = _task_facts(dataset, split, candidates[0], measure)
        answers = []
        with console.Progress(f"scoring on {split}", len(candidates)) as progress:
            for candidate in candidates:
                answers.append(outputs_of(candidate, dataset, split, measure.max_length))
                progress.advance()
        add_scores(facts, answers, dataset, shared.seed)
        if measure.disagreements:
            write_disagreements(Path(measure.disagreements), dataset, split, names, answers)
    fitting = [shape for shape in shapes if shape[1] <= min(c.longest for c in candidates)]
    if len(fitting) < len(shapes):
        console.warn("shapes longer than a model's positions are left out")
    latency = measure_in_turns(
        {candidate.name: candidate.prepare for candidate in candidates},
        fitting,
        rounds=measure.rounds,
    )
    for entry in facts:
        entry["latency"] = latency[entry["name"]]
        entry.setdefault("accuracy", None)
    return build_report(
        add_load_after(machine), task, names[0], facts, command_line(words), shared.seed
    )


def unique_names(checkpoints: list[Checkpoint]) -> list[str]:
    """A name for each model: the folder's, with its parent's where two are alike."""
    names = [checkpoint.name for checkpoint in checkpoints]
    return [
        name if names.count(name) == 1 else f"{checkpoint.path.resolve().parent.name}/{name}"
        for name, checkpoint in zip(names, checkpoints, strict=True)
    ]


def _task_facts(
    dataset: Dataset, split: str, candidate: Candidate, measure: MeasureOptions
) -> dict[str, Any]:
    from compressor.commands.candidates import tokenise_milliseconds

    texts = [row.texts for row in islice(dataset.rows(split), TOKENISED_ROWS)]
    return {
        "name": dataset.task.name,
        "data": dataset.source.name,
        "data_hash": dataset.hash,
        "split": split,
        "labels": list(dataset.labels or ()),
        "metric": dataset.task.metric,
        "max_length": measure.max_length,
        "tokenise_ms_per_row": tokenise_milliseconds(candidate, texts),
    }


def _fingerprint(
    checkpoints: list[Checkpoint], dataset: Dataset | None, measure: MeasureOptions, shared: Shared
) -> dict[str, Any]:
    """What a report that is reused must have been made from."""
    import dataclasses

    return {
        "models": {checkpoint.name: checkpoint.weights_hash for checkpoint in checkpoints},
        "data": dataset.hash if dataset else None,
        "options": dataclasses.asdict(measure),
        "seed": shared.seed,
    }


def _is_done(target: Path, fingerprint: dict[str, Any]) -> bool:
    import json

    file = target / "report.json"
    return file.is_file() and json.loads(file.read_text())["inputs"] == fingerprint
