"""A shallower student that starts as a copy of some of its teacher's layers.

V. Sanh, L. Debut, J. Chaumond, T. Wolf: DistilBERT, 2019, arXiv 1910.01108 (initialisation);
the layer choice for other depths is the even spread that reproduces the authors' lists.

    teacher layer of student layer i = round(i (N - 1) / (M - 1)),  i = 0 ... M - 1

with N teacher and M student layers. Embeddings, pooler and head are copied too; a student without
token-type embeddings and pooler, as the paper's is, is `--student distilbert`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.depth import LAYER_MAP_HELP, LAYERS_HELP, chosen_layers
from compressor.methods.option import option
from compressor.model.layers import only_stack
from compressor.model.surgery import keep_layers

if TYPE_CHECKING:
    from compressor.model.load import Loaded

VERBS = ("distill",)


@dataclass(frozen=True)
class Options:
    """How many layers the student keeps, and which."""

    layers: int = option(0, LAYERS_HELP, low=0, source="DistilBERT")
    layer_map: str = option("", LAYER_MAP_HELP)


def build(teacher: Loaded, options: Options) -> Loaded:
    """A copy of the teacher with only the chosen layers."""
    _, stack = only_stack(teacher.model)
    kept = chosen_layers(len(stack), options.layers, options.layer_map)
    student = copy.deepcopy(teacher.model)
    keep_layers(student, kept)
    return teacher.with_model(student)
