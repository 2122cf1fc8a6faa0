"""What `benchmark` measures, and the limits that fail a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.checkpoint.folder import Checkpoint
from compressor.commands.options import parse_batches, parse_shapes
from compressor.errors import InputError, UsageError
from compressor.methods.option import option, refuse_idle

TEXT_SHAPES, IMAGE_SHAPES = "1x32,1x128,8x64", "1,8"


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured, and the limits that fail the job."""

    split: str = option(
        "",
        "rows to score on; validation, or test if there is none",
        choices=("", "validation", "test", "train"),
    )
    shapes: str = option(
        "",
        f"batch x length of the latency calls, {TEXT_SHAPES} if absent; for models of images, "
        f"which all have one size, batches alone, {IMAGE_SHAPES} if absent",
    )
    rounds: int = option(30, "turns of each model at each shape", low=3)
    starts: int = option(
        5,
        "fresh processes of each model that share the rounds: how much they differ is what a "
        "speed-up's interval is made of, and 1 has none",
        low=1,
    )
    scaling: bool = option(
        False,
        "measure how latency grows with batch and length, and how near it comes to plain matrix "
        "products of the same shapes",
    )
    landscape: bool = option(
        False, "draw the loss around the weights of float models, and measure how sharp it is"
    )
    landscape_rows: int = option(256, "rows of the split that its loss is the mean of", low=8)
    landscape_grid: int = option(21, "points along each direction", low=5)
    landscape_radius: float = option(
        0.5, "how far it is drawn, in lengths of the weights", low=1e-6, source="the authors' tool"
    )
    landscape_rho: float = option(
        0.05, "length of the step whose rise of the loss is its sharpness", low=1e-6, source="SAM"
    )
    precision: str = option(
        "fp32",
        "number format that PyTorch models compute in; a graph keeps its own",
        choices=("fp32", "fp16", "bf16"),
    )
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

    def __post_init__(self) -> None:
        if self.shapes:  # which of the two it must be, only the models can tell
            parse = parse_batches if self.shapes.replace(",", "").isdigit() else parse_shapes
            parse(self.shapes, "--shapes")
        if not self.landscape:
            parts = ("rows", "grid", "radius", "rho")
            refuse_idle(self, [f"landscape_{part}" for part in parts], "without --landscape")


def shapes_for(checkpoints: Sequence[Checkpoint], measure: MeasureOptions) -> list[tuple[int, int]]:
    """The (batch, length) pairs of the latency calls; an image's length is 1, whatever its size.

    Raises:
        InputError: models of text beside models of images.
        UsageError: shapes or `--scaling` of the other kind.
    """
    reads_images = {checkpoint.reads_images for checkpoint in checkpoints}
    if len(reads_images) > 1:
        names = ", ".join(c.name for c in checkpoints if c.reads_images)
        raise InputError(f"{names} reads images and the others text, which no row could compare")
    if not reads_images.pop():
        return parse_shapes(measure.shapes or TEXT_SHAPES, "--shapes")
    if measure.scaling:
        raise UsageError(
            "--scaling measures how latency grows with length, and an image has none",
            hint="--shapes 1,4,16 measures several batch sizes",
            where="--scaling",
        )
    return parse_batches(measure.shapes or IMAGE_SHAPES, "--shapes")
