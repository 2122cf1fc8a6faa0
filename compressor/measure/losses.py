"""The loss that training minimises, from the outputs of an evaluation."""

from __future__ import annotations

import numpy as np


def mean_loss(task_name: str, outputs: np.ndarray, labels: np.ndarray) -> float:
    """What training would call the loss: cross-entropy of classes, squared error, nats a token.

    Args:
        task_name: a key of `compressor.data.tasks.TASKS`.
        outputs: logits [rows, classes], or [rows, 1]; summed negative log-likelihood [rows] for
            language models.
        labels: [rows]; scored tokens of each row for language models.
    """
    values = np.asarray(outputs, dtype=np.float64)
    if task_name.endswith("-lm"):
        return float(values.sum() / labels.sum())
    if task_name == "regression":
        return float(np.square(values[:, 0] - labels).mean())
    top = values.max(1, keepdims=True)
    log_total = np.log(np.exp(values - top).sum(1)) + top[:, 0]
    return float((log_total - values[np.arange(len(values)), labels]).mean())
