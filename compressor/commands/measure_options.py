"""What `benchmark` measures, and the limits that fail a job."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.methods.contract import option
from compressor.methods.find import refuse_idle


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
        if not self.landscape:
            parts = ("rows", "grid", "radius", "rho")
            refuse_idle(self, [f"landscape_{part}" for part in parts], "without --landscape")
