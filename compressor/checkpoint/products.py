"""The matrix products that one call of a checkpoint's layers makes, by its config and tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.checkpoint.config import size_in
from compressor.checkpoint.facts import tensor_facts
from compressor.checkpoint.families import FAMILIES, PRUNED_PREFIX, split_layer
from compressor.checkpoint.pruned import widths_in

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint


@dataclass(frozen=True)
class Products:
    """What is multiplied in one call.

    Attributes:
        matrices: the shape of the matrix of every linear map, as stored, once for each time that
            it is used.
        attentions: (heads, width of a head) of every layer; () where the config does not tell.
    """

    matrices: tuple[tuple[int, ...], ...]
    attentions: tuple[tuple[int, int], ...]


def products_of(checkpoint: Checkpoint) -> Products:
    """The products of the layers of an opened folder, PyTorch or ONNX.

    Raises:
        InputError: sizes in the config that are none.
    """
    return Products(_matrices(checkpoint), _attentions(checkpoint))


def _matrices(checkpoint: Checkpoint) -> tuple[tuple[int, ...], ...]:
    facts = [f for f in tensor_facts(checkpoint) if f.in_encoder and len(f.shape) == 2]
    family = FAMILIES.get(checkpoint.family)
    groups = size_in(
        checkpoint.config, family.stored_layers if family else "", checkpoint.path / "config.json"
    )
    if groups is None:
        return tuple(fact.shape for fact in facts)
    # Layers share what a group stores; a graph may hold nameless copies of it.
    depth = checkpoint.layers
    uses = Counter(layer * groups // depth for layer in range(depth))
    named = [fact for fact in facts if split_layer(fact.name)]
    return tuple(fact.shape for fact in named for _ in range(uses[fact.layer]))


def _attentions(checkpoint: Checkpoint) -> tuple[tuple[int, int], ...]:
    """Not of two stacks, which read inputs of different lengths."""
    config, where = checkpoint.config, checkpoint.path / "config.json"
    family = FAMILIES.get(checkpoint.family)
    if family is None or family.decoder_layers:
        return ()
    if checkpoint.model_type.startswith(PRUNED_PREFIX):
        widths = widths_in(config, where)
        return tuple((heads, widths.head_width) for heads in widths.heads)
    heads, hidden = (size_in(config, key, where) for key in (family.heads, family.hidden))
    if heads is None or hidden is None:
        return ()
    width = size_in(config, family.head_width, where) or hidden // heads
    return ((heads, width),) * checkpoint.layers
