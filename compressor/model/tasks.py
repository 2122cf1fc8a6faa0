"""Which task a checkpoint's own head serves, read from its config; imports no torch."""

from __future__ import annotations

from compressor.checkpoint.folder import Checkpoint
from compressor.data.tasks import TASKS

_HEADS = {
    "SequenceClassification": "text-classification",
    "ImageClassification": "image-classification",
    "MaskedLM": "masked-lm",
    "CausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}


def task_of(checkpoint: Checkpoint) -> str | None:
    """A key of `compressor.data.tasks.TASKS`, or None for a model without a head."""
    architecture = checkpoint.architecture or ""
    for ending, task in _HEADS.items():
        if architecture.endswith(ending):
            scores_one_number = (
                checkpoint.config.get("problem_type") == "regression"
                or len(checkpoint.labels or ("", "")) == 1
            )
            regression = task == "text-classification" and scores_one_number
            return "regression" if regression else task
    return None


def labels_of(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    """The class names of a checkpoint that has a classifier; None for one without."""
    task = task_of(checkpoint)
    return checkpoint.labels if task and TASKS[task].labelled else None
