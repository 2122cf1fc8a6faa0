"""Outliers moved from a linear map's inputs into its weights before both are rounded.

G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth, S. Han: SmoothQuant, 2023, arXiv 2211.10438. For each
input channel j of the maps that share an input X,

    s_j = max|X_j|^a / max_i|W_ij|^(1 - a)        X' = X / s        W' = W s

where 1 / s goes into whatever makes X, so that the model computes the same. That is possible

    values -> map that joins the heads      heads mix tokens, not channels
    norm -> maps that read it alone         where the norm stands before the layer (Llama)
    up -> down                              where a gate is multiplied, not a function applied

and not from a norm whose output is the residual too, as after the layers of BERT, nor across GELU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import PARTS
from compressor.errors import InputError
from compressor.methods.contract import Batch
from compressor.model.calibration import refuse_infinite, watch_inputs
from compressor.model.layers import only_stack
from compressor.model.pruned import widths_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

SMALLEST = 1e-5
# Norms before the attention and before the feed-forward part that nothing else reads.
NORMS = {"llama": ("input_layernorm", "post_attention_layernorm")}


@dataclass(frozen=True)
class Group:
    """What makes an input, and the maps that read it.

    Attributes:
        source: a norm, or a linear map whose outputs are the channels.
        readers: linear maps.
        shared: how many neighbouring blocks of `width` channels come from one block of the source.
        width: channels of such a block.
    """

    source: nn.Module
    readers: Sequence[nn.Module]
    shared: int = 1
    width: int = 1


def groups_of(model: PreTrainedModel) -> list[Group]:
    """Every place of a model where a scale can be moved.

    Raises:
        InputError: the family is not known.
    """
    family = base_family(model.config.model_type)
    if family not in PARTS:
        raise InputError(
            f"--smooth does not know where a {family} model keeps its maps; it knows "
            f"{', '.join(PARTS)}",
            where="--smooth",
        )
    parts, widths, found = PARTS[family], widths_of(model), []
    for layer in only_stack(model)[1]:
        part = layer.get_submodule
        out = Group(part(parts.maps[2]), [part(parts.out)], widths.group, widths.head_width)
        found.append(out)
        if len(parts.ups) == 2:
            found.append(Group(part(parts.ups[1]), [part(parts.down)]))
        if family in NORMS:
            first, second = (part(name) for name in NORMS[family])
            found.append(Group(first, [part(name) for name in parts.maps]))
            found.append(Group(second, [part(name) for name in parts.ups]))
    return found


def channel_scales(
    inputs: torch.Tensor, weights: Sequence[torch.Tensor], alpha: float
) -> torch.Tensor:
    """s, [in]; 1 for a channel that is always zero on either side.

    Args:
        inputs: max|X_j|, [in].
        weights: of the maps that share the input, [out, in] each.
        alpha: a; the larger, the more of an outlier goes into the weights.
    """
    import torch

    largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)  # [in]
    scale = inputs**alpha / largest.clamp(min=SMALLEST) ** (1 - alpha)
    return torch.where((inputs > 0) & (largest > 0), scale.clamp(min=SMALLEST), 1.0)


def smooth(model: PreTrainedModel, batches: Iterable[Batch], alpha: float) -> int:
    """Move scales in place, by what `batches` show.

    Returns:
        the number of places.

    Raises:
        InputError: the family is not known, or an input is not finite.
    """
    import torch

    groups = groups_of(model)
    watched = {str(number): group.readers[0] for number, group in enumerate(groups)}
    largest: dict[str, torch.Tensor] = {}

    def see(names: Sequence[str], values: torch.Tensor) -> None:
        found = values.flatten(0, -2).float().abs().amax(0)  # [in]
        refuse_infinite(found, names[0])
        for name in names:
            largest[name] = found.maximum(largest[name]) if name in largest else found

    watch_inputs(model, watched, batches, see)
    with torch.no_grad():
        for number, group in enumerate(groups):
            move(group, largest[str(number)], alpha)
    return len(groups)


def move(group: Group, inputs: torch.Tensor, alpha: float) -> None:
    """Divide what makes the input by s and multiply the maps' columns by it."""

    def together(values: torch.Tensor) -> torch.Tensor:
        """One channel for all that come from one channel of the source, [..., source's]."""
        return values.unflatten(-1, (-1, group.shared, group.width)).amax(-2).flatten(-2)

    weights = [together(reader.weight.abs()) for reader in group.readers]
    scale = channel_scales(together(inputs), weights, alpha)  # [channels of the source]
    source = group.source
    source.weight.div_(scale[:, None] if source.weight.dim() == 2 else scale)
    if getattr(source, "bias", None) is not None:
        source.bias.div_(scale)
    spread = scale.unflatten(0, (-1, 1, group.width)).expand(-1, group.shared, -1).flatten()
    for reader in group.readers:
        reader.weight.mul_(spread)
