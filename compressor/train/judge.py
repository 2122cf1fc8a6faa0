"""Which weights are the best so far: by the task's metric, or by the loss where it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from compressor.measure.losses import mean_loss
from compressor.model.first_token import only_first_token
from compressor.train.evaluate import evaluate, torch_forward

if TYPE_CHECKING:
    import torch

    from compressor.train.criterion import Criterion
    from compressor.train.feed import Feed
    from compressor.train.run import Metrics
    from compressor.train.teacher import Teacher

LOSS = "loss"


class Judge:
    """Scores a model on the validation rows.

    Attributes:
        metric: the number that the best weights are chosen by.
    """

    def __init__(
        self, criterion: Criterion, held_out: Feed | None, teacher: Teacher | None, feed: Feed
    ) -> None:
        self.criterion, self.held_out, self.teacher = criterion, held_out, teacher
        by_loss = criterion.judges_by_loss
        self.metric = LOSS if by_loss else feed.task.metric
        self.higher_is_better = not by_loss and feed.task.higher_is_better

    def score(self, model: torch.nn.Module, check: Callable[[], None]) -> Metrics:
        """The metrics of `model` as it is, in evaluation mode for the while."""
        model.eval()
        if self.metric == LOSS:
            metrics = self.criterion.held_out(self.held_out, self.teacher, check)
        else:
            with only_first_token(model):
                self.found = evaluate(torch_forward(model), self.held_out, check=check)
            metrics = self.found.metrics
        self.metrics = metrics
        model.train()
        return metrics

    def loss(self) -> float:
        """The mean loss of the evaluation just made, whatever the metric is."""
        if self.metric == LOSS:
            return self.metrics[LOSS]
        return mean_loss(self.held_out.task.name, self.found.outputs, self.found.labels)

    def improves(self, metrics: Metrics, best: Metrics) -> bool:
        """Whether `metrics` beat the best so far (empty before the first)."""
        if self.metric not in metrics or not best:
            return self.metric in metrics
        new, old = metrics[self.metric], best[self.metric]
        return new > old if self.higher_is_better else new < old

    def shown(self, best: Metrics) -> dict[str, str]:
        """The best so far as a progress line shows it."""
        return {f"best {self.metric}": f"{best[self.metric]:.4f}"} if best else {}
