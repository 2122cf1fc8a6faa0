"""The parts of a model with a row for every word, and the ids that its config names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_IDS = re.compile(r"(.*_)?token_ids?|(begin_)?suppress_tokens|bad_words_ids")


def word_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Everything that has a row for every word, each once, the input embeddings first.

    The others are the output layer's matrix, where it is not the embeddings' own, and its bias,
    which some families keep beside the layer.

    Raises:
        InputError: the embeddings are no plain table.
    """
    from torch import nn

    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(table, nn.Embedding):
        raise InputError(
            f"a {model.config.model_type} model keeps its words in a {type(table).__name__}, "
            "expected a plain table of embeddings"
        )
    found = [table.weight]
    if head is not None:
        name = next(name for name, module in model.named_modules() if module is head)
        beside = getattr(model.get_submodule(name.rpartition(".")[0]), "bias", None)
        found += [head.weight, getattr(head, "bias", None), beside]
    unique = {id(one): one for one in found if isinstance(one, nn.Parameter)}
    return list(unique.values())


def fixed_ids(model: PreTrainedModel) -> set[int]:
    """The ids of words that must stay whatever the text is.

    These are the ones that config and generation config name, the table's padding row, and, where
    positions are counted from the padding id on (RoBERTa and its relatives), all ids up to it:
    it must keep its number.
    """
    from torch import nn

    table = model.get_input_embeddings()
    found: set[int] = set()
    _renumber_configs(model, lambda token: found.add(token) or token)
    if table.padding_idx is not None:
        found.add(table.padding_idx)
    for module in model.modules():
        counts = isinstance(module, nn.Embedding) and module.weight is not table.weight
        if counts and module.padding_idx is not None:
            found.update(range(module.padding_idx + 1))
    return {token for token in found if 0 <= token < table.num_embeddings}


def keep_words(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep the words with the ids `kept`, in that order, and drop the others, in place.

    Config, generation config and padding rows follow, so that a reload builds exactly this model.
    An id that had no row before is left as it is.

    Args:
        model: with or without a language-model head, tied or not.
        kept: ascending ids, those of `fixed_ids` among them.

    Raises:
        InputError: the model holds something else that has a row for every word.
    """
    import torch
    from torch import nn

    rows = model.get_input_embeddings().num_embeddings
    new = {old: number for number, old in enumerate(kept)}
    smaller: dict[int, nn.Parameter] = {}
    for old in word_parameters(model):
        index = torch.tensor(kept, device=old.device)
        smaller[id(old)] = nn.Parameter(old.detach()[index], requires_grad=old.requires_grad)
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            if id(old) in smaller:
                setattr(module, name, smaller[id(old)])
                _say_size(module, len(kept), new)
        if getattr(module, "vocab_size", None) == rows:
            module.vocab_size = len(kept)
    _renumber_configs(model, lambda token: new.get(token, token))
    model.config.vocab_size = len(kept)
    _refuse_other_shapes(model)


def _say_size(module: nn.Module, rows: int, new: dict[int, int]) -> None:
    """Make what a module says of its shape agree with its weight."""
    if hasattr(module, "num_embeddings"):
        module.num_embeddings = rows
        if module.padding_idx is not None:
            module.padding_idx = new[module.padding_idx]
    if hasattr(module, "out_features"):
        module.out_features = rows


def _renumber_configs(model: PreTrainedModel, new: Callable[[int], int]) -> None:
    """Set every token id in config and generation config to `new` of it."""
    for config in (model.config, getattr(model, "generation_config", None)):
        for name, value in [] if config is None else list(config.to_dict().items()):
            if _IDS.fullmatch(name):
                setattr(config, name, _each(value, new))


def _each(value: Any, new: Callable[[int], int]) -> Any:
    """`new` of an id, or of every id in nested lists of them."""
    if isinstance(value, list | tuple):
        return [_each(one, new) for one in value]
    return new(value) if isinstance(value, int) else value


def _refuse_other_shapes(model: PreTrainedModel) -> None:
    """Refuse a model from whose config a reload would build tensors of other shapes."""
    import torch

    with torch.device("meta"):
        twin = type(model)(model.config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    wrong = sorted(name for name in shapes if shapes[name] != wanted.get(name))
    if wrong:
        raise InputError(
            f"a {model.config.model_type} model has a row for every word in {wrong[0]} too, which "
            "would not follow"
        )
