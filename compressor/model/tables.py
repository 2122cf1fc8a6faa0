"""Embedding tables that are large enough to be stored as integers.

Only lookups count: a table that a head multiplies by as well stays as it is, for transformers ties
the head to it when the checkpoint is loaded, and an int8 head would be all scales short.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from compressor.checkpoint.families import FAMILIES, base_family

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

SMALLEST_TABLE_BYTES = 65_536  # as floats; below this there is little to save


def table_endings(model_type: str) -> tuple[str, ...]:
    """How the modules of a family's tables of words and positions are called, at their ends."""
    family = FAMILIES[base_family(model_type)]
    return tuple(name.removesuffix(".weight") for name in (*family.words, family.positions) if name)


def is_table(name: str, model_type: str) -> bool:
    """Whether a module's full name is that of a table of words or positions."""
    return any(f".{name}".endswith(f".{ending}") for ending in table_endings(model_type))


def table_pattern(model_type: str) -> str:
    """A regular expression for the full names of the family's tables, with or without a head."""
    return rf"(?:.*\.)?(?:{'|'.join(re.escape(end) for end in table_endings(model_type))})$"


def large_tables(model: PreTrainedModel) -> dict[str, nn.Embedding]:
    """The tables of words and positions of more than 64 kB that are only looked up, by name."""
    from torch import nn

    uses = Counter(
        id(module.weight)
        for _, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Linear | nn.Embedding)
    )
    return {
        name: module
        for name, module in model.named_modules()
        # A subclass looks up in its own way, which the format's library would replace.
        if type(module) is nn.Embedding
        and is_table(name, model.config.model_type)
        and module.weight.nbytes > SMALLEST_TABLE_BYTES
        and uses[id(module.weight)] == 1
    }
