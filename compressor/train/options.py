"""What every training verb can be told; one declaration for flag, recipe key and record."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.methods.contract import option


@dataclass(frozen=True)
class TrainingOptions:
    """How long, how fast, how careful."""

    epochs: float = option(3.0, "passes over the training rows", low=0.0)
    max_steps: int = option(0, "stop after so many optimizer steps; 0 for no limit", low=0)
    batch_size: int = option(32, "rows per step and process", low=1)
    accumulate: int = option(1, "batches whose gradients are added up in one step", low=1)
    learning_rate: float = option(
        5e-5,
        "peak learning rate",
        source="a search on held-out sentences of SST-2",
        low=0.0,
        flag="lr",
    )
    schedule: str = option(
        "linear",
        "how the learning rate falls after the warm-up",
        choices=("linear", "cosine", "constant"),
    )
    warmup: float = option(0.06, "share of the steps that warm up", low=0.0, high=1.0)
    weight_decay: float = option(0.01, "decoupled weight decay of matrices", low=0.0)
    clip: float = option(1.0, "largest norm of the gradient; 0 for no limit", low=0.0)
    max_length: int = option(128, "longest input in tokens", low=4)
    on_long: str = option(
        "truncate", "what to do with longer inputs", choices=("truncate", "error")
    )
    precision: str = option(
        "auto",
        "number format of the forward pass; auto takes bf16 where the processor gains from it",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    eval_steps: int = option(0, "evaluate every so many steps; 0 for once an epoch", low=0)
    save_steps: int = option(500, "save a state to resume from every so many steps", low=1)
    resume: bool = option(False, "go on from the saved state, or start fresh if there is none")
    keep: str = option(
        "best",
        "which weights to keep: the best on the validation split, or the last",
        choices=("best", "last"),
    )
