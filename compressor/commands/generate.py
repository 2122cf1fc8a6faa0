"""`generate`: make training rows with a language model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import console
from compressor.checkpoint.folder import Checkpoint, refuse_quantized
from compressor.checkpoint.lineage import GENERATION
from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, DataOptions, Shared, as_record
from compressor.commands.slots import Methods, Picked, Slot
from compressor.commands.training import bound_to, data_for_training, forgetting_refusals
from compressor.data.dataset import Dataset
from compressor.errors import InputError
from compressor.methods.contract import Work
from compressor.model.tasks import task_of

if TYPE_CHECKING:
    from compressor.data.rows import Example, Row

SLOTS = (Slot("--method", ("generators",), "tinybert_augment", "how rows are made"),)


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    data: DataOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with a stopped run, if there is one")
    ] = False,
) -> None:
    """Make training rows with a language model, as a folder that every verb takes as --data.

    The folder holds the old and the new training rows, and the other splits as they are.

    compressor generate mlm --data reviews/ -o rows
    """
    picked = methods.one("method")
    checkpoint = open_model(model, shared)
    refuse_quantized(checkpoint, "generate")
    refuse_other_head(checkpoint, picked)
    record = {"method": picked.name, **as_record(picked.options)}
    dataset = data_for_training(data)
    job = Job(
        verb="generate",
        words=words,
        shared=shared,
        models={"model": checkpoint},
        record=record,
        dataset=dataset,
        record_name=GENERATION,
    )
    if not job.begin(needed_bytes=bytes_of(dataset)):
        return
    with job.at_work():
        if console.is_main_process():
            _generate(job, dataset, picked, resume=resume)


def refuse_other_head(checkpoint: Checkpoint, picked: Picked) -> None:
    """Refuse a model without the head that the method asks.

    Raises:
        InputError: says how to train one.
    """
    wanted = picked.method.module.MODEL_TASK
    if task_of(checkpoint) != wanted:
        raise InputError(
            f"{checkpoint.name} has no {wanted} head ({checkpoint.architecture}), which "
            f"{picked.name} needs",
            hint=f"train one first: compressor finetune {checkpoint.path} --task {wanted} "
            "--data TEXT",
            where=str(checkpoint.path),
        )


def bytes_of(dataset: Dataset) -> int:
    """Bytes of the files of a data set, which a folder with all of its rows needs at least."""
    return sum(file.stat().st_size for files in dataset.source.splits.values() for file in files)


def _generate(job: Job, dataset: Dataset, picked: Picked, *, resume: bool) -> None:
    """Load, generate, publish; what was worked out stays in the state until the folder stands."""
    from compressor.model.devices import choose_device
    from compressor.model.load import load
    from compressor.train.kept import KeptFile
    from compressor.train.state import StateFolder

    state = StateFolder(job.target, bound_to(job))
    state.prepare(resume=resume, force=job.shared.force)
    with KeptFile(state.path / "kept.jsonl") as kept:
        if len(kept):
            console.note(f"going on after block {len(kept)} from {state.path}")
        with forgetting_refusals(state, lambda: len(kept)):
            loaded = load(job.models["model"], picked.method.module.MODEL_TASK)
            loaded.model.to(choose_device(job.shared.device))
            facts: dict[str, Any] = {}

            def new_rows() -> Iterator[Example]:
                work = Work(job.shared.seed, kept)
                with console.Progress("generating", _count(dataset), unit="rows") as progress:
                    rows = _counted(dataset.rows("train"), progress)
                    yield from picked.method.module.generate(loaded, rows, picked.options, work)

            job.publish(lambda folder: _write(folder, dataset, new_rows(), facts), facts=facts)
    state.remove()


def _count(dataset: Dataset) -> int:
    return sum(1 for _ in dataset.rows("train"))


def _counted(rows: Iterator[Row], progress: console.Progress) -> Iterator[Row]:
    for row in rows:
        yield row
        progress.advance()


def _write(
    folder: Path,
    dataset: Dataset,
    new: Iterator[Example],
    facts: dict[str, Any],
) -> dict[str, int]:
    """Write every split into `folder` and its speed into `facts`; the rows by what they are."""
    from compressor.data.generated import write_rows

    counts: dict[str, int] = {}
    started = time.monotonic()
    for split in dataset.source.splits:
        name = "original" if split == "train" else split
        counts[name] = write_rows(folder / f"{split}.jsonl", dataset, dataset.rows(split))
    counts["generated"] = write_rows(folder / "train.jsonl", dataset, new)
    seconds = time.monotonic() - started
    facts["rows_per_second"] = round(counts["generated"] / max(seconds, 1e-9), 1)
    console.note(
        f"{counts['generated']:,} new rows beside the {counts['original']:,} of "
        f"{dataset.source.name}, {facts['rows_per_second']:,} rows/s"
    )
    if not counts["generated"]:
        console.warn("no new row was made")
    return counts
