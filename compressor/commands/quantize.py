"""`quantize`: weights as integers, in the format that `from_pretrained` opens."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from compressor.checkpoint.folder import refuse_quantized
from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, PACK_HELP, DataOptions, Shared, as_record
from compressor.commands.scoring import DatasetRows, validation_metrics
from compressor.commands.sensitivity import Sensitivity, refuse_unjudged, without_harmed
from compressor.commands.slots import Methods, Slot
from compressor.commands.training import data_if_named
from compressor.model.devices import choose_device
from compressor.model.tasks import labels_of

SLOTS = (Slot("--method", ("transforms",), "dynamic", "how to quantize"),)


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    data: DataOptions,
    shared: Shared,
    methods: Methods,
    words: list[str],
    max_length: Annotated[int, typer.Option(min=4, help="longest input in tokens")] = 128,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="rank the maps by the harm of quantizing each")
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="most points lost; the most harmed maps stay in float for it"),
    ] = None,
    pack: Annotated[bool, typer.Option("--pack", help=PACK_HELP)] = False,
) -> None:
    """Store a checkpoint's weights as integers, in the format that `from_pretrained` opens.

    With --data the result is scored on the validation rows; static calibrates on training rows.

    compressor quantize sparse -o int8

    compressor quantize sparse --method static --data reviews/ -o int8

    compressor quantize sparse --data reviews/ --max-drop 0.5 -o int8
    """
    picked = methods.one("method")
    checkpoint = open_model(model, shared)
    refuse_quantized(checkpoint, "quantize")
    needs_data = picked.method.module.needs_data(picked.options)
    dataset = data_if_named(data, labels_of(checkpoint), needed=needs_data)
    looks = sensitivity or max_drop is not None
    if looks:
        refuse_unjudged(checkpoint, picked, dataset, max_drop)
    record = {"method": picked.name, **as_record(picked.options), "max_length": max_length}
    record |= {"sensitivity": sensitivity, "max_drop": max_drop} if looks else {}
    job = Job("quantize", words, shared, {"model": checkpoint}, record, dataset, pack=pack)
    if not job.begin(needed_bytes=checkpoint.disk_bytes):
        return
    with job.at_work(), TemporaryDirectory(prefix="compressor-") as scratch:
        from compressor.model.load import load_whole
        from compressor.model.quantized import save_quantized

        loaded = load_whole(checkpoint)
        loaded.model.to(choose_device(shared.device))
        rows, options, facts = None, picked.options, {}
        if needs_data or looks:
            rows = DatasetRows(dataset, loaded, max_length, shared.seed, Path(scratch))
        if looks:
            found = Sensitivity(loaded, rows, picked)
            found.show()
            facts["sensitivity"] = found.harms
        if max_drop is not None:
            facts["kept_in_float"] = found.kept_in_float(dataset, max_drop, Path(scratch))
            options = without_harmed(picked, facts["kept_in_float"])
        facts |= picked.method.module.apply(loaded, rows, options)
        metrics = validation_metrics(loaded, dataset, max_length) if dataset else {}
        if max_drop is not None:
            facts["lost"] = found.lost_at_last(metrics, dataset.task.metric, max_drop)
        job.publish(lambda folder: save_quantized(loaded, folder), metrics={**facts, **metrics})
