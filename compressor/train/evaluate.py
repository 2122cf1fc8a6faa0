"""A model's outputs and metrics over a split, for anything that can be called on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compressor.data.rows import NO_CLASS
from compressor.measure.metrics import evaluate_predictions, perplexity
from compressor.model.inputs import fed
from compressor.model.output_rows import only_at

if TYPE_CHECKING:
    import torch

    from compressor.train.feed import Feed

Forward = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What a pass over a split gave.

    Attributes:
        metrics: every metric of the task that is defined on these rows; a correlation with
            labels that are all the same is not.
        outputs: logits [rows, classes] in the order of the rows; summed negative log-likelihood
            [rows] for language models.
        labels: [rows]; scored tokens of each row for language models.
        count: rows, or scored tokens for language models.
    """

    metrics: dict[str, float]
    outputs: np.ndarray
    labels: np.ndarray
    count: int


def torch_forward(model: torch.nn.Module) -> Forward:
    """`model` as a function from arrays to the array of its logits, on its own device.

    Of a masked language model it gives those of labelled tokens alone, [labelled, vocabulary],
    where the arrays have labels.
    """
    import torch

    device = next(model.parameters()).device

    def forward(arrays: dict[str, np.ndarray]) -> np.ndarray:
        labels = arrays.get("labels")
        chosen = torch.zeros(0) if labels is None else torch.from_numpy(labels != NO_CLASS)
        known = only_at(model, chosen.to(device)) if chosen.dim() == 2 else nullcontext(False)
        with torch.inference_mode(), known as narrows:
            inputs = fed(model, arrays)
            inputs = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
            logits = model(**inputs).logits.float().cpu().numpy()
        return logits[0] if narrows else logits

    return forward


def evaluate(
    forward: Forward,
    feed: Feed,
    *,
    check: Callable[[], None] = lambda: None,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run a split through `forward` and score it.

    Args:
        forward: arrays of a batch to logits; it takes those that its model is fed.
        feed: the split.
        check: called before every batch; raises to stop.
        advance: called after every batch, for progress.
    """
    scored = _Rows(feed) if feed.task.labelled else _Tokens(feed)
    for number, rows in enumerate(feed.plan(0, shuffle=False)):
        check()
        # A fixed key per batch: every model is asked about the same masked tokens.
        arrays = feed.arrays(rows, 0, number)
        scored.add(rows, forward(arrays), arrays["labels"], feed.task.name)
        advance()
    return scored.result(feed.task.name)


def _defined(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


class _Rows:
    """One output vector per row."""

    def __init__(self, feed: Feed) -> None:
        self.labels = np.asarray(feed.encoded.labels)
        self.outputs: np.ndarray | None = None

    def add(self, rows: np.ndarray, logits: np.ndarray, labels: np.ndarray, task: str) -> None:
        if self.outputs is None:
            self.outputs = np.zeros((len(self.labels), logits.shape[-1]), dtype=np.float32)
        self.outputs[rows] = logits

    def result(self, task: str) -> Evaluation:
        metrics = _defined(evaluate_predictions(task, self.outputs, self.labels))
        return Evaluation(metrics, self.outputs, self.labels, len(self.labels))


class _Tokens:
    """Negative log-likelihood of the labelled tokens, summed for each row."""

    def __init__(self, feed: Feed) -> None:
        self.nll = np.zeros(len(feed))  # [rows], in nats
        self.tokens = np.zeros(len(feed))  # [rows]

    def add(self, rows: np.ndarray, logits: np.ndarray, labels: np.ndarray, task: str) -> None:
        if task == "causal-lm":
            logits, labels = logits[:, :-1], labels[:, 1:]
        chosen = labels != NO_CLASS  # [batch, length]
        scores = logits if logits.ndim == 2 else logits[chosen]  # [tokens, vocabulary]
        wanted, scores = labels[chosen], scores.astype(np.float64)
        top = scores.max(-1, keepdims=True)
        log_total = np.log(np.exp(scores - top).sum(-1)) + top[:, 0]
        nll = np.zeros(chosen.shape)
        nll[chosen] = log_total - scores[np.arange(len(wanted)), wanted]
        self.nll[rows], self.tokens[rows] = nll.sum(1), chosen.sum(1)

    def result(self, task: str) -> Evaluation:
        count = int(self.tokens.sum())
        metrics = _defined({"perplexity": perplexity(float(self.nll.sum()), count)})
        return Evaluation(metrics, self.nll, self.tokens, count)
