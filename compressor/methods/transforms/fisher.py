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
Different: rescaling follows the full model, where the authors' code follows the model at the
square root of the ratio; rearrangement is off, for it can hurt. Left out: the search by a table
of latencies.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import parts_of
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch, option
from compressor.methods.unit_gradients import Gradients, first_rows, mask_gradients, mean_length
from compressor.methods.unit_scales import repair
from compressor.methods.units import (
    choose,
    head_macs,
    in_blocks,
    neuron_macs,
    rearranged,
    split_budget,
    split_evenly,
)
from compressor.model.layers import only_stack
from compressor.model.pruned import remove_units, widths_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from compressor.checkpoint.pruned import Widths
    from compressor.model.load import Loaded

VERBS = ("prune",)
MINI_BATCH = 32  # the paper's; other sizes rank differently


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
    round_ffn: int = option(1, "make feed-forward widths multiples of this", low=1)
    uniform: bool = option(
        False,
        "the same widths in every layer, so that the result opens without compressor; heads stay "
        "whole unless the family's config has head_dim",
    )


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulates of one sequence.

    Attributes:
        head: of one head, or group of heads.
        neuron: of one neuron.
    """

    head: int
    neuron: int

    def total(self, widths: Widths) -> int:
        """Of all layers."""
        return sum(widths.heads) // widths.group * self.head + sum(widths.ffn) * self.neuron


def allowed_heads(model: PreTrainedModel, widths: Widths) -> list[int]:
    """The numbers of heads, or groups of heads, that all layers can have under a plain config.

    Raises:
        InputError: the layers differ already and the family's config cannot say how wide a head is.
    """
    family = base_family(model.config.model_type)
    full = widths.hidden // widths.head_width
    if parts_of(family).sets_head_width:
        most = min(widths.heads) // widths.group
        return [k for k in range(1, most + 1) if widths.hidden % (k * widths.group) == 0]
    if set(widths.heads) != {full}:
        raise InputError(
            f"layers of this {family} model have {', '.join(map(str, widths.heads))} heads, and "
            f"a plain {family} config can only say {full}",
            hint="leave --uniform out, or start from the checkpoint before heads were removed",
        )
    return [full]


def found_counts(
    model: PreTrainedModel,
    heads: list[torch.Tensor],
    neurons: list[torch.Tensor],
    costs: Costs,
    options: Options,
) -> tuple[int, int]:
    """How many heads and blocks of neurons stay: over all layers, or with `uniform` in each.

    Args:
        model: before anything is removed.
        heads: Fisher importance of the heads, by layer.
        neurons: the same of the neurons.
        costs: of one unit of either kind.
        options: the budget and the shape of the result.

    Raises:
        UsageError: no layer could keep a head and a block of neurons.
    """
    widths, block = widths_of(model), options.round_ffn
    if block > min(widths.ffn):
        raise UsageError(
            f"--round-ffn {block}: a layer has only {min(widths.ffn)} neurons", where="--round-ffn"
        )
    total = costs.total(widths)
    spend = (in_blocks(neurons, block), int(options.mac_ratio * total), costs.head)
    if options.uniform:
        allowed = allowed_heads(model, widths)
        found = split_evenly(heads, *spend, block * costs.neuron, allowed)
        least = len(heads) * (min(allowed) * costs.head + block * costs.neuron)
    else:
        found = split_budget(heads, *spend, block * costs.neuron)
        least = len(heads) * (costs.head + block * costs.neuron)
    if found is None:
        raise UsageError(
            f"--mac-ratio {options.mac_ratio:g} is {spend[1]:,} multiply-accumulates; the smallest "
            f"result that this model allows has {least:,}",
            hint=f"--mac-ratio {-(-1000 * least // total) / 1000:g} or more",
            where="--mac-ratio",
        )
    return found


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
    if options.random_seed and options.importance != "random":
        raise UsageError("--random-seed needs --importance random", where="--random-seed")
    sample = first_rows(batches, options.samples)
    length = options.sequence_length or round(mean_length(sample))
    maps = len(parts_of(base_family(model.config.model_type)).ups) + 1
    costs = Costs(head_macs(length, before), neuron_macs(length, before.hidden, maps))
    kinds = mask_gradients(model, loaded.task, sample, MINI_BATCH)
    counts = found_counts(model, fisher(kinds[0]), fisher(kinds[1]), costs, options)
    scores = unit_scores(model, kinds, options)
    kept = [
        choose(score, count, block=block, evenly=options.uniform)
        for score, count, block in zip(scores, counts, (1, options.round_ffn), strict=True)
    ]
    if options.rearrange:
        kept = [
            [rearranged(*each) for each in zip(kind.batches, score, units, strict=True)]
            for kind, score, units in zip(kinds, scores, kept, strict=True)
        ]
    stack = only_stack(model)[1]
    parameters = sum(p.numel() for p in stack.parameters())
    full = None if options.repair == "none" else copy.deepcopy(stack)
    remove_units(model, *kept)
    tuned = repair(model, full, sample, options.repair) if full is not None else []
    after = widths_of(model)
    return {
        "heads_per_layer": list(after.heads),
        "ffn_per_layer": list(after.ffn),
        "repaired": tuned,
        "sequence_length": length,
        "macs_before": costs.total(before),
        "macs_after": costs.total(after),
        "encoder_parameters_before": parameters,
        "encoder_parameters_after": sum(p.numel() for p in stack.parameters()),
        "calibration_rows": sum(len(batch["input_ids"]) for batch in sample),
    }
