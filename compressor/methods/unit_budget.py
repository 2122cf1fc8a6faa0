"""A budget for heads and neurons: counted operations, or time measured on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import parts_of
from compressor.errors import InputError, UsageError
from compressor.methods.unit_latency import measured
from compressor.methods.units import (
    head_macs,
    in_blocks,
    neuron_macs,
    split_budget,
    split_evenly,
)
from compressor.model.pruned import widths_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from compressor.checkpoint.pruned import Widths


@dataclass(frozen=True)
class Costs:
    """What one call costs: fixed + heads x head + neurons x neuron, over all layers.

    Attributes:
        head: of one head, or group of heads.
        neuron: of one neuron.
        fixed: of everything else.
        least: heads and neurons that every layer keeps, because fewer would save nothing.
        unit: what is counted.
        flag: which option sets the share that may be spent.
    """

    head: float
    neuron: float
    fixed: float = 0
    least: tuple[int, int] = (1, 1)
    unit: str = "multiply-accumulates"
    flag: str = "--mac-ratio"

    def total(self, widths: Widths) -> float:
        """Of a model with these widths."""
        heads = sum(widths.heads) // widths.group
        return self.fixed + heads * self.head + sum(widths.ffn) * self.neuron

    def too_small(self, ratio: float, widths: Widths, smallest: float) -> UsageError:
        """The refusal of a budget below what every layer keeps.

        Args:
            ratio: share of the costs that may be spent.
            widths: of the model before anything is removed.
            smallest: what the smallest result costs.
        """
        total = self.total(widths)
        return UsageError(
            f"{self.flag} {ratio:g} is {self.text(ratio * total)}; the smallest result that this "
            f"model allows has {self.text(smallest)}",
            hint=f"{self.flag} {-(-1000 * smallest // total) / 1000:g} or more",
            where=self.flag,
        )

    def text(self, amount: float) -> str:
        """`1,710,489 multiply-accumulates` or `3.46 ms`."""
        return f"{amount:,.2f} ms" if self.unit == "ms" else f"{amount:,.0f} {self.unit}"


@dataclass(frozen=True)
class Shape:
    """What the result may look like.

    Attributes:
        ratio: share of the costs that may be spent.
        block: neurons that are kept or removed together.
        uniform: whether all layers have the same widths.
    """

    ratio: float
    block: int = 1
    uniform: bool = False


def counted_costs(model: PreTrainedModel, length: int) -> Costs:
    """Multiply-accumulates of the layers for one sequence of `length` tokens."""
    widths = widths_of(model)
    maps = len(parts_of(base_family(model.config.model_type)).ups) + 1
    return Costs(head_macs(length, widths), neuron_macs(length, widths.hidden, maps))


def timed_costs(model: PreTrainedModel, batch: int, length: int) -> Costs:
    """Milliseconds of a call of the whole model in PyTorch.

    Raises:
        InputError: neither fewer heads nor fewer neurons make it faster.
    """
    widths, found = widths_of(model), measured(model, batch, length)
    if not found.head and not found.neuron:
        raise InputError(
            f"at batch {batch} and length {length} the model gets no faster with fewer heads or "
            "neurons, so no latency can be bought with them",
            hint="--latency-batch or --sequence-length with a larger value, or --mac-ratio",
        )
    bare = Costs(found.head, found.neuron).total(widths)
    return Costs(
        found.head, found.neuron, found.full - bare, found.free, "ms", flag="--latency-ratio"
    )


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
    shape: Shape,
) -> tuple[int, int]:
    """How many heads and blocks of neurons stay: over all layers, or with `uniform` in each.

    Args:
        model: before anything is removed.
        heads: importance of the heads, by layer.
        neurons: the same of the neurons.
        costs: of one unit of either kind.
        shape: the budget and the shape of the result.

    Raises:
        UsageError: the budget is below what every layer keeps.
    """
    widths, block = widths_of(model), shape.block
    if block > min(widths.ffn):
        raise UsageError(
            f"--round-ffn {block}: a layer has only {min(widths.ffn)} neurons", where="--round-ffn"
        )
    total, price = costs.total(widths), block * costs.neuron
    least = costs.least[0], least_blocks(costs, block)
    units, spend = (heads, in_blocks(neurons, block)), shape.ratio * total - costs.fixed
    if shape.uniform:
        allowed = allowed_heads(model, widths)
        found = split_evenly(*units, spend, costs.head, price, allowed, least[1])
        fewest = len(heads) * min(allowed), len(heads) * least[1]
    else:
        found = split_budget(*units, spend, costs.head, price, least)
        fewest = tuple(
            sum(min(count, len(layer)) for layer in kind)
            for count, kind in zip(least, units, strict=True)
        )
    if found is None:
        smallest = costs.fixed + fewest[0] * costs.head + fewest[1] * price
        raise costs.too_small(shape.ratio, widths, smallest)
    return found


def least_blocks(costs: Costs, block: int) -> int:
    """How many blocks of neurons every layer keeps."""
    return -(-costs.least[1] // block)
