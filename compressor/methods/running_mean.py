"""The mean of the weights that a training passes through, in fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.methods.contract import Context
from compressor.model.inputs import fed
from compressor.model.masks import SPARSE

if TYPE_CHECKING:
    import torch
    from torch import nn


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters that are trained, and buffers of floats, by name; shared ones once."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    floats = {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    return {**trained, **floats}


class RunningMean:
    """The mean of the states of a model that were added.

    Attributes:
        count: how many were.
        mean: by name, fp32, of the shapes of `trained_tensors`; empty before the first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, torch.Tensor] = {}

    def add(self, model: nn.Module) -> bool:
        """Add the weights as they are.

        The mean of two sparse matrices with other zeros has fewer: where the pattern has changed
        since the last time, the mean begins anew.

        Returns:
            Whether it did.
        """
        import torch

        values = {name: tensor.detach() for name, tensor in trained_tensors(model).items()}
        anew = bool(self.mean) and other_zeros(values, self.mean)
        if anew:
            self.count = 0
        self.count += 1
        with torch.no_grad():
            for name, value in values.items():
                if self.count == 1:
                    self.mean[name] = value.float().clone()
                else:
                    self.mean[name] += (value.float() - self.mean[name]) / self.count
        return anew

    def merge(self, other: RunningMean) -> None:
        """Add all the weights that `other` is the mean of."""
        import torch

        self.count += other.count
        with torch.no_grad():
            for name, value in other.mean.items():
                if self.count == other.count:
                    self.mean[name] = value.clone()
                else:
                    self.mean[name] += (value - self.mean[name]) * (other.count / self.count)

    def put_into(self, model: nn.Module) -> None:
        """Give the model the mean weights."""
        import torch

        with torch.no_grad():
            for name, tensor in trained_tensors(model).items():
                tensor.copy_(self.mean[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The mean and its count."""
        import torch

        return {**self.mean, "count": torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self.mean = {name: value for name, value in state.items() if name != "count"}
        self.count = int(state["count"])


def other_zeros(values: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    """Whether a sparse matrix has zeros in other places than its namesake."""
    return any(_differ(value, others[name]) for name, value in values.items() if value.dim() > 1)


def _differ(value: torch.Tensor, other: torch.Tensor) -> bool:
    zeros, before = value == 0, other == 0
    sparse = max(int(zeros.sum()), int(before.sum())) > SPARSE * value.numel()
    return sparse and bool((zeros != before).any())


def renew_statistics(model: torch.nn.Module, context: Context) -> None:
    """Collect the running statistics of batch normalisation anew, in one pass over the rows."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    model.train()
    with torch.no_grad():
        for batch in context.batches():
            model(**fed(model, batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
