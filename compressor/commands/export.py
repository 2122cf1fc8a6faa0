"""`export`: an ONNX folder that ONNX Runtime runs fast, int8 by default, parity checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import console
from compressor.checkpoint.folder import Checkpoint
from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, DataOptions, Making, as_record, parse_shapes
from compressor.commands.scoring import refuse_unscored, split_feed
from compressor.commands.training import data_if_named
from compressor.errors import InputError, UsageError
from compressor.methods.option import option, refuse_idle
from compressor.model.tasks import labels_of, task_of

if TYPE_CHECKING:
    import torch

    from compressor.data.dataset import Dataset
    from compressor.export.judge import Judge
    from compressor.export.session import Session
    from compressor.model.load import Loaded

LARGE_ROUNDING = 0.5
SCORING = ("max_drop", "max_length")  # options that need rows


@dataclass(frozen=True)
class ExportOptions:
    """What the graph computes with, and how close it must stay."""

    weights: str = option(
        "int8",
        "number format of the matrices; an int8 checkpoint keeps its own integers",
        choices=("int8", "fp16", "fp32"),
    )
    embeddings: str = option(
        "int8", "number format of the embedding tables", choices=("int8", "fp32")
    )
    cpu: str = option(
        "auto",
        "processor that an int8 graph is made for; auto is this one. x86 is one without VNNI",
        choices=("auto", "x86", "vnni", "arm64"),
    )
    cache: bool = option(
        True, "a decoder that writes: keys and values as inputs and outputs, to go on from"
    )
    tune: str = option(
        "",
        "batch x length, such as 1x32: measure the graphs that may be fastest there on this "
        "machine, floats among them, and keep the best",
    )
    tolerance: float = option(
        0.0, "largest parity error, relative to the size of the outputs; 0 for the default", low=0.0
    )
    max_drop: float = option(
        0.5, "with --data: gate, most points that a graph may lose against PyTorch"
    )
    max_length: int = option(128, "with --data: longest scored input in tokens", low=4)


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    export: ExportOptions,
    data: DataOptions,
    shared: Making,
    words: list[str],
) -> None:
    """Make an ONNX folder that ONNX Runtime runs fast, int8 by default.

    The graph is checked against PyTorch as re-read from disk; a failing check exits 4. With --data
    it is scored on the validation rows, too, beside PyTorch.

    compressor export quantized -o exported

    compressor export teacher --tune 1x32 --data reviews/ -o exported
    """
    checkpoint = open_model(model, shared)
    refuse_useless(checkpoint, export, data)
    if export.weights != "int8":
        export = replace(export, embeddings=export.weights)
    shape = one_shape(export.tune) if export.tune else None
    record = {"method": "onnx", **as_record(export)}
    if data.data:
        data = replace(data, task=data.task or task_of(checkpoint) or "")
    dataset = data_if_named(data, labels_of(checkpoint))
    if dataset is not None:
        refuse_unscored(checkpoint, dataset, "--data")
    else:
        record = {name: value for name, value in record.items() if name not in SCORING}
    job = Job("export", words, shared, {"model": checkpoint}, record, dataset)
    if not job.begin(needed_bytes=2 * checkpoint.disk_bytes):
        return
    with job.at_work(), TemporaryDirectory(prefix="compressor-") as scratch:
        _export(job, checkpoint, export, shape, Path(scratch))


def refuse_useless(checkpoint: Checkpoint, export: ExportOptions, data: DataOptions) -> None:
    """Refuse an export that would gain nothing, and flags that would do nothing.

    Raises:
        InputError: the checkpoint is no model to export so.
        UsageError: names the flag.
    """
    if checkpoint.runtime == "onnxruntime":
        raise InputError(f"{checkpoint.name} is an ONNX folder already", where=str(checkpoint.path))
    if checkpoint.quantization is not None and export.weights != "int8":
        raise InputError(
            f"{checkpoint.name} holds integers, so --weights {export.weights} would gain nothing",
            hint=f"export its parent in the lineage as {export.weights}",
        )
    if export.weights != "int8" and export.cpu != "auto":
        raise UsageError(f"--cpu does nothing with --weights {export.weights}", where="--cpu")
    if not export.cache and task_of(checkpoint) != "causal-lm":
        raise UsageError(
            f"--no-cache does nothing here: only a decoder that writes has keys and values to go "
            f"on from, and {checkpoint.name} is none ({checkpoint.architecture})",
            where="--no-cache",
        )
    if not data.data:
        refuse_idle(export, SCORING, "without --data")
    if export.tune:
        refuse_untunable(checkpoint, export)


def refuse_untunable(checkpoint: Checkpoint, export: ExportOptions) -> None:
    """Refuse to measure what this machine's clock says nothing about.

    Raises:
        UsageError: the graph is for another processor, or for GPUs; or it takes images.
    """
    from compressor.export.cpu import cpu_preset

    here = cpu_preset()
    if export.cpu not in ("auto", here):
        raise UsageError(
            f"--tune measures on this machine, whose preset is {here}, and --cpu {export.cpu} is "
            "for another",
            hint=f"leave out --tune, or run it on a machine of the preset {export.cpu}",
            where="--cpu",
        )
    if export.weights == "fp16":
        raise UsageError(
            "--tune measures on the processor, and --weights fp16 is for GPUs",
            hint="leave out --tune, or --weights fp16",
            where="--weights",
        )
    if checkpoint.reads_images:
        raise UsageError("--tune makes up tokens, and this model takes images", where="--tune")


def _export(
    job: Job,
    checkpoint: Checkpoint,
    options: ExportOptions,
    shape: tuple[int, int] | None,
    scratch: Path,
) -> None:
    """Load, export, publish."""
    from compressor.export.card import write_card, write_script
    from compressor.export.export import Exporter
    from compressor.export.tune import tuned_folder
    from compressor.model.dequantized import load_dequantized
    from compressor.model.integers import read_integers
    from compressor.model.load import load_whole, longest_input

    quantized = checkpoint.quantization is not None
    loaded = (load_dequantized if quantized else load_whole)(checkpoint, attention="eager")
    judge = None
    if job.dataset is not None:  # a quantized model is scored as it is, its inputs rounded
        whole = load_whole(checkpoint) if quantized else loaded
        judge = judge_of(whole, job.dataset, options, scratch)
    exporter = Exporter(
        loaded.model,
        loaded.tokenizer,
        example_inputs(loaded),
        weights=read_integers(checkpoint) if quantized else None,
        quantize_embeddings=options.embeddings == "int8",
        preset=None if options.cpu == "auto" else options.cpu,
        cache=options.cache and loaded.task == "causal-lm",
        tolerance=options.tolerance or None,
        seed=job.shared.seed,
    )
    how = {"number_format": options.weights, "round_inputs": loaded.task != "causal-lm"}
    facts: dict[str, Any] = {}

    def write(folder: Path) -> dict[str, Any]:
        if shape:
            found, facts["tuning"] = tuned_folder(folder, shape, exporter, **how, judge=judge)
        else:
            found = exporter.export(folder, **how)
            found |= judge.check(folder) if judge else {}
        if loaded.tokenizer is not None:
            write_script(loaded, folder, longest_input(loaded))
        steps = [*checkpoint.steps, job.step(found)]
        write_card(folder, loaded, steps, found, facts.get("tuning"))
        warn_of_rounding(found["parity"].get("rounding_error", 0.0))
        return found

    job.publish(write, facts=facts)


def judge_of(loaded: Loaded, dataset: Dataset, options: ExportOptions, scratch: Path) -> Judge:
    """Scores the checkpoint on the validation rows; says what a graph may lose on them.

    Args:
        loaded: the model as PyTorch opens it.
        dataset: with validation rows.
        options: the limit, and the longest input.
        scratch: for tokens.

    Raises:
        InputError: the checkpoint has no score.
    """
    from compressor.export.judge import Judge
    from compressor.export.session import forward_of
    from compressor.model.load import silenced
    from compressor.train.evaluate import evaluate, torch_forward

    metric = dataset.task.metric
    feed = split_feed(dataset, "validation", loaded, options.max_length, 0, scratch)
    with silenced():  # int8 weights unpack on first use, with a bar
        metrics = evaluate(torch_forward(loaded.model), feed).metrics
    if metric not in metrics:
        raise InputError(
            f"{metric} of {loaded.checkpoint.name} is undefined on the validation rows, so nothing "
            "can be judged by it",
            hint="rows of more than one label, or no --data",
            where=dataset.source.name,
        )
    console.note(f"in PyTorch: {metric} {metrics[metric]:.4f}")
    whole = round(metrics[metric], 6)

    def metrics_of(session: Session) -> dict[str, float]:
        return evaluate(forward_of(session), feed).metrics

    return Judge(metric, whole, options.max_drop, metrics_of)


def warn_of_rounding(error: float) -> None:
    """Say so when int8 alone moves the outputs so far that the graph may be of no use.

    Args:
        error: of PyTorch with the same rounding, as a share of the largest output.
    """
    if error > LARGE_ROUNDING:
        console.warn(
            f"int8 moves the outputs by up to {error:.0%} of the largest on random inputs: score "
            "the graph before it is used (compressor benchmark), or round weights alone "
            "(quantize --method gptq --bits 8)"
        )


def one_shape(text: str) -> tuple[int, int]:
    """The batch and length of `--tune`.

    Raises:
        UsageError: it is something else, or several.
    """
    shapes = parse_shapes(text, "--tune")
    if len(shapes) != 1:
        raise UsageError(f"--tune {text}: expected one batch x length", where="--tune")
    return shapes[0]


def example_inputs(loaded: Loaded) -> dict[str, torch.Tensor]:
    """One batch of every input that the graph is to take."""
    import torch

    from compressor.model.inputs import has_token_types
    from compressor.model.save import probe_inputs

    inputs = probe_inputs(loaded.model)
    if has_token_types(loaded.model.config):
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return inputs
