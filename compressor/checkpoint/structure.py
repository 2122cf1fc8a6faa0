"""Do the tensors of a folder fit each other and its config? Answered without torch.

transformers fills whatever is missing with random numbers and goes on, so this is asked before it
runs. It cannot know every tensor of every head; the loader asks again when the model is built.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from compressor.checkpoint.config import architecture_in, labels_in, size_in
from compressor.checkpoint.families import (
    FAMILIES,
    PRUNED_PREFIX,
    Family,
    base_family,
    split_layer,
)
from compressor.checkpoint.header import TensorInfo
from compressor.checkpoint.pruned import check_pruned
from compressor.checkpoint.reading import some
from compressor.errors import InputError

_SCORES = re.compile(
    r"^(classifier\.weight|(classifier|classification_head)\.out_proj\.weight|score\.weight)$"
)
_CLASSIFIERS = ("SequenceClassification", "TokenClassification", "ImageClassification")
# What compressed-tensors stores beside a weight; layers that were left in float have none.
COMPANION = re.compile(
    r"\.((weight|input|output)_(scale|zero_point)|weight_(shape|g_idx|global_scale))$"
)
Tensors = Mapping[str, TensorInfo]


def check_structure(config: dict[str, Any], tensors: Tensors, folder: Path) -> None:
    """Refuse missing layers, uneven layers, and shapes that the config contradicts.

    Args:
        config: the content of config.json.
        tensors: every tensor of the folder.
        folder: for the message.

    Raises:
        InputError: with the tensors and both numbers.
    """
    refuse_bare_integers(config, tensors, folder)
    model_type = str(config.get("model_type"))
    pruned = model_type.startswith(PRUNED_PREFIX)
    if pruned:
        check_pruned(config, tensors, folder)
    family = FAMILIES.get(base_family(model_type))
    if family is None:
        return  # one of our own types
    where = folder / "config.json"
    _check_layers(config, family, tensors, folder, alike=not pruned)
    _check_heads(config, family, where)
    _check_tables(config, family, tensors, folder)
    _check_labels(config, tensors, where)


def refuse_bare_integers(config: dict[str, Any], tensors: Tensors, folder: Path) -> None:
    """Refuse integers under the name of a weight, which load as if they were floats.

    Raises:
        InputError: there are no scales, or the config does not say how to use them.
    """
    bare = [
        name
        for name, info in tensors.items()
        if name.endswith(".weight")
        and info.dtype in ("I8", "U8")
        and f"{name}_scale" not in tensors
    ]
    if bare:
        raise InputError(
            f"int8 values without scales: {some(bare)} ({len(bare)} in all) would load as if "
            "they were floats",
            hint="quantize the float checkpoint with: compressor quantize",
            where=str(folder),
        )
    scales = [name for name in tensors if name.endswith(".weight_scale")]
    if scales and config.get("quantization_config") is None:
        raise InputError(
            f"{some(scales, 1)} says that the weights are quantized, but config.json has no "
            "quantization_config: they would load as if they were floats",
            hint="copy config.json again from where the checkpoint was made",
            where=str(folder / "config.json"),
        )


def weight_name(name: str) -> str:
    """The name of the weight that a packed tensor stands for; any other name as it is."""
    return name.removesuffix("_packed") if name.endswith(".weight_packed") else name


def _check_layers(
    config: dict[str, Any], family: Family, tensors: Tensors, folder: Path, *, alike: bool
) -> None:
    """Every layer 0 ... N-1 is there, with the same tensors, of the same shapes if `alike`."""
    stacks: dict[str, dict[int, dict[str, TensorInfo]]] = defaultdict(lambda: defaultdict(dict))
    for name, info in tensors.items():
        place = None if COMPANION.search(name) else split_layer(weight_name(name))
        if place:
            stack, index, inner = place
            stacks[stack][index][inner] = info
    if not stacks:
        raise InputError(
            f"no layers: none of the {len(tensors)} tensors lies in a numbered layer",
            where=str(folder),
        )
    where = folder / "config.json"
    for stack, layers in stacks.items():
        decoder = bool(family.decoder_layers) and "decoder" in stack.split(".")
        key = family.decoder_layers if decoder else family.stored_layers or family.layers
        depth = size_in(config, key, where) or max(layers) + 1
        surplus = sorted(index for index in layers if index >= depth)
        if surplus:
            raise InputError(
                f"{stack} holds {len(layers)} layers, config.json says {key} {depth}; "
                f"unexpected: {some(f'{stack}.{index}' for index in surplus)}",
                where=str(where),
            )
        _check_same_tensors(stack, layers, depth, family, folder)
        if alike:
            _check_same_shapes(stack, layers, folder)


def _check_same_tensors(
    stack: str,
    layers: Mapping[int, Mapping[str, TensorInfo]],
    depth: int,
    family: Family,
    folder: Path,
) -> None:
    """What at least half of the layers have, all must have; what fewer have, none may."""
    counts = Counter(inner for held in layers.values() for inner in held)
    free = {inner for inner in counts if any(part in inner for part in family.uneven)}
    usual = {inner for inner, count in counts.items() if 2 * count >= len(layers)} - free
    # A config may claim any depth, so absent layers are counted, never listed one by one.
    gone = depth - len(layers)
    absent = islice((index for index in range(depth) if index not in layers), 2)
    holes = [(index, usual) for index in absent]
    holes += [(index, usual - set(held)) for index, held in sorted(layers.items())]
    missing = [f"{stack}.{index}.{inner}" for index, lost in holes for inner in sorted(lost)]
    count = len(missing) + max(gone - 2, 0) * len(usual)
    if missing:
        raise InputError(
            f"tensors are missing: {some(missing)} ({count} in all)",
            hint="fetch or save the checkpoint again; with these gone random numbers would "
            "take their place",
            where=str(folder),
        )
    odd = [
        f"{stack}.{index}.{inner}"
        for index, held in layers.items()
        for inner in sorted(set(held) - usual - free)
    ]
    if odd:
        raise InputError(
            f"unexpected tensors, which most layers do not have: {some(odd)} ({len(odd)} in all)",
            where=str(folder),
        )


def _check_same_shapes(
    stack: str, layers: Mapping[int, Mapping[str, TensorInfo]], folder: Path
) -> None:
    shapes: dict[str, list[tuple[tuple[int, ...], int]]] = defaultdict(list)
    for index, held in sorted(layers.items()):
        for inner, info in held.items():
            if not info.name.endswith("_packed"):
                shapes[inner].append((info.shape, index))
    for inner, found in shapes.items():
        usual = Counter(shape for shape, _ in found).most_common(1)[0][0]
        for shape, index in found:
            if shape != usual:
                raise InputError(
                    f"{stack}.{index}.{inner} has shape {list(shape)}, in the other layers it "
                    f"has {list(usual)}",
                    hint="layers of different widths need a model type of our own",
                    where=str(folder),
                )


def _check_heads(config: dict[str, Any], family: Family, where: Path) -> None:
    hidden = size_in(config, family.hidden, where)
    heads = size_in(config, family.heads, where)
    if hidden and heads and hidden % heads and not size_in(config, family.head_width, where):
        raise InputError(
            f"{family.heads} {heads} does not divide {family.hidden} {hidden}", where=str(where)
        )
    groups = size_in(config, "num_key_value_heads", where)
    if heads and groups and heads % groups:
        raise InputError(
            f"num_key_value_heads {groups} does not divide {family.heads} {heads}",
            where=str(where),
        )


def _check_tables(config: dict[str, Any], family: Family, tensors: Tensors, folder: Path) -> None:
    """The embedding tables have as many rows and columns as the config says."""
    where = folder / "config.json"
    tables = [name for name in tensors if _ends(name, family.words)]
    if family.words and not tables:
        raise InputError(
            f"tensors are missing: no {' or '.join(family.words)} (word embeddings, 1 in all)",
            hint="fetch or save the checkpoint again",
            where=str(folder),
        )
    expected = [(name, "vocab_size", family.word_width, 0) for name in tables] + [
        (name, family.position_rows, family.word_width, family.extra_positions)
        for name in tensors
        if family.positions and _ends(name, (family.positions,))
    ]
    for name, row_key, width_key, extra in expected:
        shape = tensors[name].shape
        rows = size_in(config, row_key, where)
        wanted = (rows and rows + extra, size_in(config, width_key, where))
        for found, size, key in zip(shape, wanted, (row_key, width_key), strict=False):
            if len(shape) != 2 or (size and found != size):
                raise InputError(
                    f"{name} has shape {list(shape)}, config.json says {key} {config.get(key)}",
                    where=str(where),
                )


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _check_labels(config: dict[str, Any], tensors: Tensors, where: Path) -> None:
    """A classifier has one row of weights per label."""
    if not str(architecture_in(config)).endswith(_CLASSIFIERS):
        return
    labels = labels_in(config, where)
    count = len(labels) if labels else size_in(config, "num_labels", where) or 2
    listed = f"{count} labels: {some(labels, 20)}" if labels else f"{count} labels without names"
    for name, info in tensors.items():
        if _SCORES.match(name) and info.shape and info.shape[0] != count:
            raise InputError(
                f"head has {info.shape[0]} rows, config lists {listed} ({name})",
                hint="correct id2label in config.json, or train a new head with finetune",
                where=str(where),
            )
