"""How the loss answers to every head and neuron: gradients of masks that are all 1.

A mask variable multiplies what a unit hands on: a head's part of the input of the map that joins
the heads, a neuron's activation before the map out of the feed-forward part. With nothing masked
the forward pass is the model's own, and dL/dm says what removing the unit would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.methods.contract import Batch
from compressor.methods.objectives.task import IGNORED, task_loss
from compressor.methods.unit_masks import multiply_units
from compressor.model.inputs import fed
from compressor.model.pruned import widths_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Gradients:
    """Mask gradients of the units of one kind, one entry per layer.

    Attributes:
        batches: of the mean loss of every mini-batch, [mini-batches, units].
        sizes: mean over rows of the absolute gradient of the row's own loss, [units].
    """

    batches: list[torch.Tensor]
    sizes: list[torch.Tensor]


def first_rows(batches: Iterable[Batch] | None, rows: int) -> list[dict[str, torch.Tensor]]:
    """Batches that hold the first `rows` rows, labels included.

    Raises:
        InputError: there are none.
    """
    kept: list[dict[str, torch.Tensor]] = []
    left = rows
    for batch in batches or ():
        kept.append({name: value[:left] for name, value in batch.items()})
        left -= len(batch["input_ids"])
        if left <= 0:
            break
    if not kept:
        raise InputError("importance needs rows with labels", hint="name them with --data")
    return kept


def mean_length(batches: Iterable[Batch]) -> float:
    """Mean number of real tokens of a row."""
    masks = [batch["attention_mask"] for batch in batches]
    return sum(int(mask.sum()) for mask in masks) / sum(len(mask) for mask in masks)


def mask_gradients(
    model: PreTrainedModel, task: str, batches: Iterable[Batch], mini_batch: int
) -> tuple[Gradients, Gradients]:
    """Gradients of all masks at 1, with dropout off.

    Args:
        model: of a family whose heads can be removed.
        task: a key of `compressor.data.tasks.TASKS`.
        batches: rows with labels, in batches of any size.
        mini_batch: rows whose mean loss gives one gradient vector.

    Returns:
        those of the heads, or groups of heads, and those of the neurons.

    Raises:
        InputError: no row has a label.
    """
    import torch

    model.eval()
    waiting: list[list[torch.Tensor]] = []  # gradients of single rows, by mask, and their labels
    means: list[list[torch.Tensor]] = []
    sizes, rows = None, 0

    def close(count: int) -> None:
        joined = [torch.cat(parts) for parts in zip(*waiting, strict=True)]
        *gradients, labels = (part[:count] for part in joined)
        waiting[:] = [[part[count:] for part in joined]]
        if labels.sum():
            means.append([g.sum(0) / labels.sum() for g in gradients])

    for batch in batches:
        gradients, labels = row_gradients(model, task, batch)
        sums = [(g / labels.clamp(min=1)[:, None]).abs().sum(0) for g in gradients]
        sizes = sums if sizes is None else [a + b for a, b in zip(sizes, sums, strict=True)]
        rows += int((labels > 0).sum())
        waiting.append([*gradients, labels])
        while sum(len(parts[-1]) for parts in waiting) >= mini_batch:
            close(mini_batch)
    close(mini_batch)
    if not means:
        raise InputError("none of the rows has a label, so the loss has no gradient")
    stacked = [torch.stack(parts) for parts in zip(*means, strict=True)]
    shares = [total / rows for total in sizes]
    return Gradients(stacked[::2], shares[::2]), Gradients(stacked[1::2], shares[1::2])


def row_gradients(
    model: PreTrainedModel, task: str, batch: Batch
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Every row's own mask gradients of its summed loss.

    Returns:
        [rows, units] for heads and neurons of every layer in turn, and the number of labels that
        each row's loss sums over, [rows]; all on the CPU.
    """
    import torch

    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in fed(model, batch).items()}
    labels = batch["labels"].to(device)
    counts = label_counts(task, labels)
    with _frozen(model), _masked(model, len(labels)) as masks:
        logits = model(**inputs).logits
        loss = task_loss(task, logits, labels) * counts.sum()  # the sum in place of the mean
        gradients = torch.autograd.grad(loss, masks)
    return [gradient.cpu() for gradient in gradients], counts.cpu()


def label_counts(task: str, labels: torch.Tensor) -> torch.Tensor:
    """How many labels of each row enter the loss, [rows]."""
    if task == "regression":
        return (~labels.isnan()).long()
    if task == "causal-lm":
        labels = labels[:, 1:]
    known = (labels != IGNORED).long()
    return known if known.dim() == 1 else known.sum(1)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Keep no activations for gradients of weights, which nobody asks for."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _masked(model: PreTrainedModel, rows: int) -> Iterator[list[torch.Tensor]]:
    """Multiply what the units hand on by masks of 1, [rows, units] each."""
    import torch

    widths, device = widths_of(model), next(model.parameters()).device
    masks = [
        torch.ones(rows, count, device=device, requires_grad=True)
        for heads, neurons in zip(widths.heads, widths.ffn, strict=True)
        for count in (heads // widths.group, neurons)
    ]
    handles = multiply_units(model, lambda layer, kind: masks[2 * layer + kind])
    try:
        yield masks
    finally:
        for handle in handles:
            handle.remove()
