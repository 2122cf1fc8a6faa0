"""Models whose layers differ in attention heads and feed-forward width: built, saved, reopened.

The configs of transformers have one number of heads and one feed-forward width for all layers, and
`prune_heads` is gone from version 5. So a model with `heads_per_layer` and `ffn_per_layer` in its
config has a model type of its own, `compressor_pruned_<family>`, whose classes are made here from
the family's: they build the family's model and cut its linear maps. Everything else, forward pass
included, is the family's. Where what is left can be said in the family's own config, the model
keeps the family's type and opens anywhere.

transformers learns of such a type when it is registered. The verbs do that when they meet one.
Elsewhere one line is needed before `from_pretrained`, because registering imports the family's
code, which `import compressor` alone should not have to wait for:

    from compressor.model.pruned import register; register()
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import FAMILIES, PRUNED_PREFIX, base_family
from compressor.checkpoint.pruned import (
    FFN,
    HEADS,
    KEPT,
    PARTS,
    Parts,
    Widths,
    parts_of,
    widths_in,
)
from compressor.errors import InputError
from compressor.model.layers import only_stack

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

_AUTO_CLASSES = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
)
CONFIG = Path("config.json")  # what a faulty config is called in messages
# How attention modules call the number of their heads, where they keep it.
_COUNTS = ("num_attention_heads", "n_heads", "num_heads")


def register(*families: str) -> None:
    """Make transformers' Auto classes open the pruned models of these families.

    Args:
        families: keys of `PARTS`, or model types of pruned models; all of them when none is named.

    Raises:
        InputError: no such model type.
    """
    for family in families or PARTS:
        parts_of(base_family(family))
        _register(base_family(family))


@cache
def _register(family: str) -> None:
    import transformers

    config_class = _config_class(family)
    transformers.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    plain = transformers.CONFIG_MAPPING[family]
    for name in _AUTO_CLASSES:
        auto = getattr(transformers, name)
        if plain in auto._model_mapping:
            model_class = _model_class(auto._model_mapping[plain])
            auto.register(config_class, model_class, exist_ok=True)


@cache
def _config_class(family: str) -> type[PretrainedConfig]:
    import transformers

    plain = transformers.CONFIG_MAPPING[family]
    members = {
        "__module__": __name__,
        "__doc__": f"{plain.__name__} with {HEADS} and {FFN}.",
        "model_type": PRUNED_PREFIX + family,
    }
    return type(f"Pruned{plain.__name__}", (plain,), members)


@cache
def _model_class(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class that builds `plain` and cuts its layers as the config says."""

    def __init__(self: Any, config: PretrainedConfig, *args: Any, **named: Any) -> None:  # noqa: N807
        plain.__init__(self, config, *args, **named)
        widths = widths_in(config.to_dict(), CONFIG)
        heads = [list(range(count)) for count in widths.heads]
        _cut_layers(self, widths, heads, [list(range(count)) for count in widths.ffn])

    members = {
        "__module__": __name__,
        "__doc__": f"{plain.__name__} with layers that differ in heads and feed-forward width.",
        "__init__": __init__,
        "config_class": _config_class(base_family(plain.config_class.model_type)),
    }
    return type(f"Pruned{plain.__name__}", (plain,), members)


def attention_width(config: PretrainedConfig, layer: int) -> int:
    """Width of a layer's queries, all heads joined, in a model whose heads fill the hidden width.

    Args:
        config: of a pruned model or any other.
        layer: 0-based; negative from the end.
    """
    heads = getattr(config, HEADS, None)
    if heads is None:
        return config.hidden_size
    return heads[layer] * config.hidden_size // config.num_attention_heads


def widths_of(model: PreTrainedModel) -> Widths:
    """The heads and neurons of every layer of a model.

    Raises:
        InputError: its family cannot be pruned.
    """
    return widths_in(model.config.to_dict(), CONFIG)


def remove_units(
    model: PreTrainedModel, heads: Sequence[Sequence[int]], neurons: Sequence[Sequence[int]]
) -> None:
    """Keep the given heads and neurons of every layer and remove the others, in place.

    Head h owns rows h d_h ... (h + 1) d_h - 1 of the query, key and value maps, biases included,
    and those columns of the map that joins the heads, whose bias stays. Neuron j owns row j of the
    maps into the feed-forward part and column j of the map out of it. Where key and value heads
    are shared, a whole group of query heads goes with them. Class and config become those of a
    pruned model, or stay the family's own where they can say what is left.

    Args:
        model: of a family in `PARTS`, pruned before or not.
        heads: numbers of the heads to keep, ascending, as the layer counts them now; groups where
            key and value heads are shared.
        neurons: numbers of the neurons to keep, ascending, by layer.

    Raises:
        InputError: the family cannot be pruned, a layer would be left with nothing, or a number
            is not one of its units.
    """
    before = widths_of(model)
    _refuse_absent(heads, [count // before.group for count in before.heads], "heads")
    _refuse_absent(neurons, before.ffn, "neurons")
    after = Widths(
        heads=tuple(before.group * len(kept) for kept in heads),
        ffn=tuple(len(kept) for kept in neurons),
        kept=before.kept
        and tuple(
            tuple(old[head] for head in kept) for old, kept in zip(before.kept, heads, strict=True)
        ),
        head_width=before.head_width,
        group=before.group,
        hidden=before.hidden,
    )
    every_head = [
        [g * before.group + i for g in kept for i in range(before.group)] for kept in heads
    ]
    _cut_layers(model, after, every_head, neurons)
    _describe(model, after)


def _refuse_absent(kept: Sequence[Sequence[int]], sizes: Sequence[int], what: str) -> None:
    for layer, (units, size) in enumerate(zip(kept, sizes, strict=True)):
        if not units or list(units) != sorted(set(units)) or units[0] < 0 or units[-1] >= size:
            raise InputError(
                f"cannot keep {what} {list(units)[:10]} of layer {layer}, which has {what} 0 to "
                f"{size - 1}; at least one must stay"
            )


def _cut_layers(
    model: PreTrainedModel,
    widths: Widths,
    heads: Sequence[Sequence[int]],
    neurons: Sequence[Sequence[int]],
) -> None:
    """Cut every layer's maps to these units; `widths` is what is left."""
    parts = parts_of(base_family(model.config.model_type))
    for index, layer in enumerate(only_stack(model)[1]):
        _cut_attention(layer, parts, widths, index, heads[index])
        for name in parts.ups:
            _keep_rows(layer.get_submodule(name), neurons[index])
        _keep_columns(layer.get_submodule(parts.down), neurons[index])


def _cut_attention(
    layer: nn.Module, parts: Parts, widths: Widths, index: int, heads: Sequence[int]
) -> None:
    width, group = widths.head_width, widths.group
    rows = [head * width + i for head in heads for i in range(width)]
    pairs = [head // group * width + i for head in heads[::group] for i in range(width)]
    for name, kept in zip(parts.maps, (rows, pairs, pairs), strict=True):
        _keep_rows(layer.get_submodule(name), kept)
    _keep_columns(layer.get_submodule(parts.out), rows)
    attention = layer.get_submodule(parts.attention)
    for name in _COUNTS:
        if hasattr(attention, name):
            setattr(attention, name, len(heads))
    if hasattr(attention, "all_head_size"):
        attention.all_head_size = len(rows)
    if widths.kept is not None:
        if not hasattr(attention, "kept_heads"):
            attention.register_forward_pre_hook(_own_bias)
        attention.kept_heads = list(widths.kept[index])


def _own_bias(attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave of the scores' bias [batch, heads before pruning, queries, keys] what is kept."""
    hidden, mask, bias, *others = inputs
    return (hidden, mask, bias[:, attention.kept_heads], *others)


def _keep_rows(linear: nn.Linear, rows: Sequence[int]) -> None:
    _replace(linear, "weight", linear.weight.detach()[_index(linear, rows)])
    if linear.bias is not None:
        _replace(linear, "bias", linear.bias.detach()[_index(linear, rows)])
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Sequence[int]) -> None:
    _replace(linear, "weight", linear.weight.detach()[:, _index(linear, columns)])
    linear.in_features = len(columns)


def _index(linear: nn.Linear, units: Sequence[int]) -> torch.Tensor:
    import torch

    return torch.tensor(list(units), device=linear.weight.device)


def _replace(linear: nn.Linear, name: str, values: torch.Tensor) -> None:
    from torch import nn

    trained = getattr(linear, name).requires_grad
    setattr(linear, name, nn.Parameter(values.contiguous(), requires_grad=trained))


def _describe(model: PreTrainedModel, widths: Widths) -> None:
    """Give a model that was cut the config and the class that a reload builds it from."""
    import torch

    config = model.config
    family = base_family(config.model_type)
    keys, parts = FAMILIES[family], parts_of(family)
    for key in (HEADS, FFN, KEPT):
        config.__dict__.pop(key, None)
    heads, ffn = widths.heads[0], widths.ffn[0]
    # A config of one number for all layers; transformers wants heads that divide the hidden width.
    alike = set(widths.heads) == {heads} and set(widths.ffn) == {ffn}
    fewer = parts.sets_head_width and widths.hidden % heads == 0
    if alike and (heads == getattr(config, keys.heads) or fewer):
        _become(model, plain=True)
        setattr(config, keys.ffn, ffn)
        if fewer:
            setattr(config, keys.heads, heads)
            config.num_key_value_heads = heads // widths.group
            setattr(config, keys.head_width, widths.head_width)
        return
    _become(model, plain=False)
    setattr(config, HEADS, list(widths.heads))
    setattr(config, FFN, list(widths.ffn))
    if widths.kept is not None:
        setattr(config, KEPT, [list(kept) for kept in widths.kept])
    with torch.device("meta"):
        type(model)(config)  # transformers notes what a class can show when one is first built


def _become(model: PreTrainedModel, *, plain: bool) -> None:
    """Give a model and its config, which its parts share, the classes of their new model type."""
    family = base_family(model.config.model_type)
    pruned = model.config.model_type != family
    # A config that was made from a dictionary may hold the class's model type once more.
    model.config.__dict__.pop("model_type", None)
    if plain and pruned:
        model.__class__ = type(model).__bases__[0]
        model.config.__class__ = type(model.config).__bases__[0]
    elif not plain and not pruned:
        register(family)
        model.__class__ = _model_class(type(model))
        model.config.__class__ = _config_class(family)
