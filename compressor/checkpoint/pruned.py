"""Layers that differ in heads and feed-forward width: what their configs say; no torch needed.

A checkpoint of the model type `compressor_pruned_<family>` is one of `<family>` whose config keeps
the numbers of heads and neurons before pruning and adds

    heads_per_layer        attention heads left in each layer
    ffn_per_layer          neurons left in each layer's feed-forward part
    kept_heads_per_layer   which heads those were, where one table serves the heads of all layers
                           by their number (MPNet's relative positions)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.checkpoint.config import size_in
from compressor.checkpoint.families import FAMILIES, PRUNED_PREFIX, base_family, split_layer
from compressor.checkpoint.header import TensorInfo
from compressor.checkpoint.reading import shown
from compressor.errors import InputError

HEADS, FFN, KEPT = "heads_per_layer", "ffn_per_layer", "kept_heads_per_layer"


@dataclass(frozen=True)
class Parts:
    """Where a layer of one family keeps what is cut, by module names inside the layer.

    Attributes:
        attention: the module that splits the maps into heads.
        maps: the query, key and value maps, cut by rows.
        out: the map that joins the heads, cut by columns.
        ups: the maps into the feed-forward part, cut by rows.
        down: the map out of it, cut by columns.
        attention_sum: the module whose input is attention output + residual.
        ffn_sum: the same of the feed-forward part; empty where that sum is the layer's output.
        shared_bias: whether one table, made outside the layers, adds to the scores of each head.
        sets_head_width: whether the config can say how wide a head is, so that fewer heads in
            every layer are still a plain config of the family.
        reads_first_token: whether a classifier reads the first token alone.
    """

    attention: str
    maps: tuple[str, str, str]
    out: str
    ups: tuple[str, ...]
    down: str
    attention_sum: str
    ffn_sum: str
    shared_bias: bool = False
    sets_head_width: bool = False
    reads_first_token: bool = True


_BERT = Parts(
    attention="attention.self",
    maps=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense",
    ups=("intermediate.dense",),
    down="output.dense",
    attention_sum="attention.output.LayerNorm",
    ffn_sum="output.LayerNorm",
)
PARTS: dict[str, Parts] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Parts(
        attention="attention",
        maps=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        out="attention.out_lin",
        ups=("ffn.lin1",),
        down="ffn.lin2",
        attention_sum="sa_layer_norm",
        ffn_sum="output_layer_norm",
    ),
    "mpnet": replace(
        _BERT,
        attention="attention.attn",
        maps=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        out="attention.attn.o",
        attention_sum="attention.LayerNorm",
        shared_bias=True,
    ),
    "llama": Parts(
        attention="self_attn",
        maps=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out="self_attn.o_proj",
        ups=("mlp.gate_proj", "mlp.up_proj"),
        down="mlp.down_proj",
        attention_sum="post_attention_layernorm",
        ffn_sum="",
        sets_head_width=True,
        reads_first_token=False,
    ),
}


def parts_of(family: str) -> Parts:
    """Where layers of a family keep their heads and neurons.

    Raises:
        InputError: the family is not in the table.
    """
    if family not in PARTS:
        raise InputError(
            f"heads and neurons of a {family} model cannot be removed; the families are "
            f"{', '.join(PARTS)}",
            hint="--method magnitude takes any family",
        )
    return PARTS[family]


@dataclass(frozen=True)
class Widths:
    """What every layer has left, and the fixed sizes beside it.

    Attributes:
        heads: attention heads of each layer.
        ffn: neurons of each layer.
        kept: which heads they were before pruning; None where their numbers do not matter.
        head_width: d_h, the width of one head.
        group: query heads that share one key and value head, and can only go together.
        hidden: d, the hidden width.
    """

    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    kept: tuple[tuple[int, ...], ...] | None
    head_width: int
    group: int
    hidden: int


def widths_in(config: Mapping[str, Any], where: Path) -> Widths:
    """The widths of every layer by a config, pruned or plain.

    Args:
        config: the content of config.json, with every size that is looked at.
        where: for the message.

    Raises:
        InputError: a family that cannot be pruned, or lists that no layers can have.
    """
    family = base_family(str(config.get("model_type")))
    parts, keys = parts_of(family), FAMILIES[family]
    depth, hidden, heads, ffn = (
        _needed(config, key, where) for key in (keys.layers, keys.hidden, keys.heads, keys.ffn)
    )
    group = heads // (size_in(dict(config), "num_key_value_heads", where) or heads)
    width = size_in(dict(config), keys.head_width, where) or hidden // heads
    if not str(config.get("model_type")).startswith(PRUNED_PREFIX):
        every = tuple(range(heads))
        kept = (every,) * depth if parts.shared_bias else None
        return Widths((heads,) * depth, (ffn,) * depth, kept, width, group, hidden)
    left = _listed(config, HEADS, depth, heads, where)
    neurons = _listed(config, FFN, depth, ffn, where)
    if any(count % group for count in left):
        raise InputError(
            f"{HEADS} is {list(left)}; every entry must be a multiple of {group}, the query heads "
            "of one key and value head",
            where=str(where),
        )
    kept = _kept(config, left, heads, where) if parts.shared_bias else None
    return Widths(left, neurons, kept, width, group, hidden)


def _needed(config: Mapping[str, Any], key: str, where: Path) -> int:
    size = size_in(dict(config), key, where)
    if size is None:
        raise InputError(f"{key} is missing", where=str(where))
    return size


def _listed(
    config: Mapping[str, Any], key: str, depth: int, most: int, where: Path
) -> tuple[int, ...]:
    """A list of one whole number from 1 to `most` a layer."""
    found = config.get(key)
    counts = tuple(found) if isinstance(found, list | tuple) else ()
    if len(counts) != depth or any(type(n) is not int or not 1 <= n <= most for n in counts):
        what = "is missing" if found is None else f"is {shown(str(found))}"
        raise InputError(
            f"{key} {what}; expected {depth} whole numbers from 1 to {most}, one a layer",
            hint="copy config.json again from where the checkpoint was made",
            where=str(where),
        )
    return counts


def _kept(
    config: Mapping[str, Any], left: tuple[int, ...], heads: int, where: Path
) -> tuple[tuple[int, ...], ...]:
    found = config.get(KEPT)
    lists = found if isinstance(found, list | tuple) else ()
    if len(lists) == len(left) and all(
        isinstance(kept, list | tuple)
        and all(type(head) is int and 0 <= head < heads for head in kept)
        and len(set(kept)) == len(kept) == count
        for kept, count in zip(lists, left, strict=True)
    ):
        return tuple(tuple(kept) for kept in lists)
    raise InputError(
        f"{KEPT} is {shown(str(found))}; expected the numbers, from 0 to {heads - 1}, of the "
        f"{', '.join(map(str, left))} heads that the layers keep",
        hint="copy config.json again from where the checkpoint was made",
        where=str(where),
    )


def check_pruned(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], folder: Path
) -> None:
    """Refuse matrices inside the layers that the config's lists contradict.

    Args:
        config: of a model type with `PRUNED_PREFIX`.
        tensors: every tensor of the folder.
        folder: for the message.

    Raises:
        InputError: with the first matrix that differs and what its layer should hold.
    """
    where = folder / "config.json"
    widths = widths_in(config, where)
    shapes = layer_shapes(base_family(str(config["model_type"])), widths)
    stored: dict[int, dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in tensors.items():
        place = split_layer(name)
        if place:
            stored[place[1]][place[2]] = info
    for index, wanted in enumerate(shapes):
        for inner, shape in wanted.items():
            held = stored[index].get(f"{inner}.weight")
            if held is not None and held.shape != shape:
                raise InputError(
                    f"{held.name} has shape {list(held.shape)}, expected {list(shape)}: "
                    f"config.json says {widths.heads[index]} heads and {widths.ffn[index]} "
                    f"neurons for layer {index}",
                    hint="copy config.json again from where the checkpoint was made",
                    where=str(where),
                )


def layer_shapes(family: str, widths: Widths) -> list[dict[str, tuple[int, int]]]:
    """The shape [out, in] of every cut map of each layer, by its name inside the layer."""
    parts, hidden = parts_of(family), widths.hidden
    found = []
    for heads, ffn in zip(widths.heads, widths.ffn, strict=True):
        query = heads * widths.head_width
        pairs = query // widths.group
        shapes = dict(zip(parts.maps, ((n, hidden) for n in (query, pairs, pairs)), strict=True))
        shapes[parts.out] = (hidden, query)
        shapes |= dict.fromkeys(parts.ups, (ffn, hidden))
        shapes[parts.down] = (hidden, ffn)
        found.append(shapes)
    return found
