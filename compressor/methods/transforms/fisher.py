"""Attention heads and feed-forward neurons removed under a budget of operations, without training.

W. Kwon, S. Kim, M. Mahoney, J. Hassoun, K. Keutzer, A. Gholami: A Fast Post-Training Pruning
Framework for Transformers, NeurIPS 2022, arXiv 2204.09656, with masks m = 1 on every head and
neuron of a fine-tuned model:

    I = sum over mini-batches b of (dL_b / dm)^2          the diagonal of the Fisher matrix
    C = ratio * (L H MAC_head + L F MAC_neuron)
    keep the k heads and n neurons of largest I, with k MAC_head + n MAC_neuron <= C, whose I sum
    to most

Afterwards rearrangement may swap units of a layer with regard to the off-diagonal terms, and
the output maps are repaired by least squares. The units are physically removed and the factors
folded into the weights, where the authors' code leaves masks.

Kept: labels, no dropout, mini-batches of 32 rows, and per layer one unit of each kind at least.
With `latency_ratio` the costs of a head and a neuron are milliseconds, measured in PyTorch with
copies of the model at the rows' mean length, and every layer keeps the units that come for free.

Ours: with `steps` the budget is reached little by little, and what is left is scored and repaired
each time, always towards the full model.

Different: rescaling follows the full model, where the authors' code follows the model at the
square root of the ratio; rearrangement is off, for it can hurt; layers are never dropped whole.

Other scores, at the numbers of heads and neurons that the Fisher search finds:

    michel     mean over rows of |dL/dm|, over the L2 norm of its layer's (P. Michel, O. Levy,
               G. Neubig: Are Sixteen Heads Really Better than One?, 2019, arXiv 1905.10650); for
               neurons as for heads, and scored once, not anew after every tenth of the heads
    magnitude  L2 norm of the unit's weights
    random     a number drawn
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import parts_of
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch
from compressor.methods.option import option
from compressor.methods.unit_budget import (
    Costs,
    Shape,
    counted_costs,
    found_counts,
    least_blocks,
    timed_costs,
)
from compressor.methods.unit_gradients import Gradients, first_rows, mask_gradients, mean_length
from compressor.methods.unit_latency import share_weights, times_of
from compressor.methods.unit_scales import repair
from compressor.methods.units import choose, rearranged
from compressor.model.layers import only_stack
from compressor.model.pruned import remove_units, widths_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from compressor.model.load import Loaded

VERBS = ("prune",)
MINI_BATCH = 32  # the paper's; other sizes rank differently
MISSED = 1.05  # of the latency that was asked for


@dataclass(frozen=True)
class Options:
    """The budget, how units are scored, and what is repaired."""

    mac_ratio: float = option(
        0.5,
        "share of the layers' multiply-accumulates to keep; embeddings, pooler and head are not "
        "counted",
        low=0.0,
        high=1.0,
    )
    latency_ratio: float = option(
        0.0,
        "share of the measured latency of the whole model to keep, in place of --mac-ratio; 0 for "
        "no such budget",
        low=0.0,
        high=1.0,
    )
    latency_batch: int = option(1, "sequences of a measured call", low=1)
    samples: int = option(2048, "number of rows to score and repair on", low=1, source="the paper")
    sequence_length: int = option(
        0, "tokens of the sequence that is counted; 0 for the rows' mean", low=0
    )
    importance: str = option(
        "fisher",
        "what decides which units go; how many heads and neurons is decided by fisher",
        choices=("fisher", "michel", "magnitude", "random"),
    )
    random_seed: int = option(0, "which draw, with --importance random", low=0)
    rearrange: bool = option(False, "swap units by the Fisher matrix of their layer (can hurt)")
    repair: str = option(
        "refit",
        "bring outputs back towards the full model's: new weights of the output maps (refit), one "
        "factor per unit that is left (rescale, the paper's), or not",
        choices=("refit", "rescale", "none"),
    )
    steps: int = option(
        1,
        "reach the budget in so many steps of equal ratio; units are scored anew, and outputs "
        "repaired, in each",
        low=1,
    )
    round_ffn: int = option(1, "make feed-forward widths multiples of this", low=1)
    uniform: bool = option(
        False,
        "the same widths in every layer, so that the result opens without compressor; heads stay "
        "whole unless the family's config has head_dim",
    )

    def __post_init__(self) -> None:
        if self.random_seed and self.importance != "random":
            raise UsageError("--random-seed needs --importance random", where="--random-seed")
        if self.latency_ratio and self.mac_ratio != 0.5:
            raise UsageError("--mac-ratio and --latency-ratio are two budgets; give one of them")
        if self.latency_batch != 1 and not self.latency_ratio:
            raise UsageError("--latency-batch needs --latency-ratio", where="--latency-batch")


def unit_norms(model: PreTrainedModel) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """L2 norm of the weights of every head, or group of heads, and of every neuron, by layer."""
    parts, widths = parts_of(base_family(model.config.model_type)), widths_of(model)
    heads, neurons = [], []
    for index, layer in enumerate(only_stack(model)[1]):
        units = widths.heads[index] // widths.group
        rows = [layer.get_submodule(name).weight.detach() for name in parts.maps]
        rows.append(layer.get_submodule(parts.out).weight.detach().T)
        squares = [part.square().sum(1).view(units, -1).sum(1) for part in rows]
        heads.append(sum(squares).sqrt().cpu())
        rows = [layer.get_submodule(name).weight.detach() for name in parts.ups]
        rows.append(layer.get_submodule(parts.down).weight.detach().T)
        neurons.append(sum(part.square().sum(1) for part in rows).sqrt().cpu())
    return heads, neurons


def fisher(gradients: Gradients) -> list[torch.Tensor]:
    """I = sum of the squared gradients of the mini-batches, [units] by layer."""
    return [batches.double().square().sum(0) for batches in gradients.batches]


def michel(gradients: Gradients) -> list[torch.Tensor]:
    """I_h over the L2 norm of its layer, [units] by layer."""
    return [sizes / sizes.norm().clamp(min=1e-30) for sizes in gradients.sizes]


def unit_scores(
    model: PreTrainedModel, kinds: tuple[Gradients, Gradients], options: Options
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The scores that decide which heads and which neurons stay, by layer."""
    import torch

    if options.importance == "magnitude":
        return unit_norms(model)
    if options.importance == "random":
        draw = torch.Generator().manual_seed(options.random_seed)
        heads, neurons = (
            [torch.rand(sizes.shape, generator=draw) for sizes in kind.sizes] for kind in kinds
        )
        return heads, neurons
    score = fisher if options.importance == "fisher" else michel
    return score(kinds[0]), score(kinds[1])


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return True


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Remove heads and neurons in place; the facts hold what is left and what it costs.

    Raises:
        InputError: the family cannot be pruned, the model has no head to take a loss from, or
            there are no rows.
        UsageError: the budget is too small, or an option would do nothing.
    """
    model = loaded.model
    before = widths_of(model)
    if loaded.task is None:
        raise InputError(
            "importance is measured by the loss of a task, and this model has no head",
            hint="train it first: compressor finetune",
        )
    sample = first_rows(batches, options.samples)
    length = options.sequence_length or round(mean_length(sample))
    macs = counted_costs(model, length)
    costs, shape = macs, Shape(options.mac_ratio, options.round_ffn, options.uniform)
    if options.latency_ratio:
        costs = timed_costs(model, options.latency_batch, length)
        shape = replace(shape, ratio=options.latency_ratio)
    stack = only_stack(model)[1]
    parameters = sum(p.numel() for p in stack.parameters())
    uncut = share_weights(model) if options.latency_ratio else None
    tuned = _cut_down(loaded, sample, costs, shape, options)
    after = widths_of(model)
    facts = {
        "heads_per_layer": list(after.heads),
        "ffn_per_layer": list(after.ffn),
        "repaired": tuned,
        "sequence_length": length,
        "macs_before": macs.total(before),
        "macs_after": macs.total(after),
        "encoder_parameters_before": parameters,
        "encoder_parameters_after": sum(p.numel() for p in stack.parameters()),
        "calibration_rows": sum(len(batch["input_ids"]) for batch in sample),
    }
    if options.latency_ratio:
        models = {"latency_before_ms": uncut, "latency_after_ms": model}
        times = times_of(models, options.latency_batch, length)
        facts |= {**times, "latency_expected_ms": costs.total(after)}
        report_latency(times["latency_before_ms"], times["latency_after_ms"], options.latency_ratio)
    return facts


def _cut_down(
    loaded: Loaded, sample: list[Batch], costs: Costs, shape: Shape, options: Options
) -> list[str]:
    """Score, remove and repair in every step; returns the maps that the last one repaired."""
    model = loaded.model
    full = None if options.repair == "none" else copy.deepcopy(only_stack(model)[1])
    whole, tuned = costs.total(widths_of(model)), []
    for step in range(1, options.steps + 1):
        kinds = mask_gradients(model, loaded.task, sample, MINI_BATCH)
        scores = fisher(kinds[0]), fisher(kinds[1])
        if step == 1:  # what the last step could not reach is refused before the first
            found_counts(model, *scores, costs, shape)
        share = shape.ratio ** (step / options.steps) * whole
        part = replace(shape, ratio=share / costs.total(widths_of(model)))
        counts = found_counts(model, *scores, costs, part)
        remove_units(model, *chosen_units(model, kinds, counts, costs, options))
        if full is not None:
            tuned = repair(model, full, sample, options.repair)
    return tuned


def report_latency(before: float, after: float, ratio: float) -> None:
    """Say what the budget came to, in PyTorch on this machine.

    Args:
        before: milliseconds of a call of the whole model.
        after: of the smaller one, measured in turns with it.
        ratio: the share that was asked for.
    """
    say = console.warn if after > MISSED * ratio * before else console.note
    say(
        f"latency: {before:.2f} ms before, {after:.2f} after, {after / before:.0%} of it; "
        f"asked for {ratio:.0%}"
    )


def chosen_units(
    model: PreTrainedModel,
    kinds: tuple[Gradients, Gradients],
    counts: tuple[int, int],
    costs: Costs,
    options: Options,
) -> list[list[list[int]]]:
    """The heads, and the neurons, that stay in every layer."""
    blocks = (1, options.round_ffn)
    least = costs.least[0], least_blocks(costs, options.round_ffn)
    scores = unit_scores(model, kinds, options)
    kept = [
        choose(score, count, block=block, evenly=options.uniform, least=fewest)
        for score, count, block, fewest in zip(scores, counts, blocks, least, strict=True)
    ]
    if not options.rearrange:
        return kept
    return [
        [rearranged(*each) for each in zip(kind.batches, score, units, strict=True)]
        for kind, score, units in zip(kinds, scores, kept, strict=True)
    ]
