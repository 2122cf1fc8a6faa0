"""What every training verb can be told; one declaration for flag, recipe key and record."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.methods.option import option

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


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
        "",
        "how the learning rate falls after the warm-up; linear if absent, but for methods that set "
        "the rate themselves",
        choices=("", "linear", "cosine", "constant"),
    )
    cycle_epochs: float = option(
        0.0, "start the schedule anew every so many epochs; 0 for never", low=0.0
    )
    final_lr: float = option(0.0, "share of --lr that the schedule falls to", low=0.0, high=1.0)
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

    def __post_init__(self) -> None:
        if self.schedule == "constant" and (self.cycle_epochs or self.final_lr):
            raise UsageError("--cycle-epochs and --final-lr do nothing with --schedule constant")


@dataclass(frozen=True)
class TeacherOptions:
    """Where a teacher's answers are kept; none of it belongs to the result's record."""

    teacher_cache: str = option(
        "", "folder that keeps the teacher's answers for later runs and other seeds"
    )
    cache_hidden: bool = option(
        False, "keep the teacher's hidden states too, where the methods look at them"
    )
    cache_limit: str = option("2GB", "largest size of the teacher's kept answers, such as 500MB")


def parse_size(text: str, flag: str) -> int:
    """A size as people write it, in bytes; powers of ten.

    Args:
        text: a number and perhaps one of B, kB, MB, GB, TB.
        flag: the flag that it was given to.

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise UsageError(f"{flag} {text}: expected a size such as 500MB or 2GB", where=flag)
    return round(float(found[1]) * _UNITS[found[2]])
