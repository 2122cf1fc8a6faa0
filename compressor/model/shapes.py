"""A config of the same family with other depth and widths."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import FAMILIES
from compressor.errors import InputError, UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def reshaped(
    config: PretrainedConfig, *, layers: int = 0, hidden: int = 0, ffn: int = 0, heads: int = 0
) -> PretrainedConfig:
    """A copy of `config` with other sizes; 0 keeps the size.

    Without `ffn`, a new hidden width keeps the ratio of the two. Key and value heads that are
    fewer than the query heads stay in proportion, and lists with an entry per layer keep the
    entries of evenly spread layers.

    Args:
        config: of the teacher.
        layers: depth.
        hidden: width of the hidden states.
        ffn: width inside the feed-forward part.
        heads: number of attention heads.

    Raises:
        InputError: the family is not in the table, or has two stacks of layers.
        UsageError: the heads do not divide the width.
    """
    family = FAMILIES.get(config.model_type)
    if family is None or family.decoder_layers:
        able = sorted(n for n, f in FAMILIES.items() if not f.decoder_layers)
        raise InputError(
            f"no smaller {config.model_type} can be made; the families are {', '.join(able)}",
            hint="name a checkpoint as --student",
        )
    new = copy.deepcopy(config)
    depth, width = getattr(config, family.layers), getattr(config, family.hidden)
    old_heads = getattr(config, family.heads)
    layers, heads, hidden_new = layers or depth, heads or old_heads, hidden or width
    _refuse_uneven(hidden_new, heads)
    sizes: dict[str, Any] = {
        family.layers: layers,
        family.hidden: hidden_new,
        family.heads: heads,
        family.ffn: ffn or (getattr(config, family.ffn) or 4 * width) * hidden_new // width,
    }
    if getattr(config, "head_dim", None):
        sizes["head_dim"] = hidden_new // heads
    if getattr(config, "num_key_value_heads", None):
        sizes["num_key_value_heads"] = max(1, config.num_key_value_heads * heads // old_heads)
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == depth and key.startswith("layer"):
            sizes[key] = [value[index * depth // layers] for index in range(layers)]
    for key, value in sizes.items():
        setattr(new, key, value)
    return new


def _refuse_uneven(hidden: int, heads: int) -> None:
    if hidden % heads:
        near = [n for n in range(1, hidden + 1) if hidden % n == 0]
        near.sort(key=lambda n: abs(n - heads))
        raise UsageError(
            f"{heads} heads do not divide a hidden width of {hidden}",
            hint=f"--student-heads {near[0]} or {near[1]}" if len(near) > 1 else "",
            where="--student-heads",
        )
