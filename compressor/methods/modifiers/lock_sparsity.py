"""Zeros that stay zeros: a sparse model is trained further without losing its pattern.

O. Zafrir, A. Larey, G. Boudoukh, H. Shen, M. Wasserblat: Prune Once for All: Sparse Pre-Trained
Language Models, 2021, arXiv 2111.05754. What is exactly zero when training begins,

    m = (w != 0)      and after every optimizer step      w <- m w

is zero when it ends, in every linear map of the model. A matrix without zeros, such as that of a
new head, is not held, nor is a table of words that stands for one. The paper masks the forward
pass; here gradients of the zeros are zero and the zeros are put back after each step, which is the
same: a weight of zero passes no signal, and no momentum or decay survives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.methods.contract import Context
from compressor.methods.option import option
from compressor.model.layers import is_linear, without
from compressor.model.masks import apply_masks, silence_gradients, zero_pattern

if TYPE_CHECKING:
    import torch


VERBS = ()
KEEPS_ZEROS = True


@dataclass(frozen=True)
class Options:
    """What is held."""

    exclude: str = option("", "comma-separated parts of module names to leave free")


class Modifier:
    """Finds the zeros before the first step and puts them back after each."""

    def __init__(self, options: Options, context: Context) -> None:
        model = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        table = model.get_input_embeddings()
        linears = {
            name: module
            for name, module in model.named_modules()
            if is_linear(module) and module.weight is not getattr(table, "weight", None)
        }
        self.modules = without(linears, options.exclude)
        self.masks: dict[str, torch.Tensor] = {}
        silence_gradients(self.modules, lambda: self.masks)

    def on_start(self) -> None:
        """Take the pattern from the weights as they are.

        Raises:
            InputError: there is no zero to hold.
        """
        self.masks = zero_pattern(self.modules)
        if not self.masks:
            raise InputError(
                "lock_sparsity holds the zeros of a sparse model, and no linear map of this one "
                "has any",
                hint="prune it first: compressor prune MODEL --sparsity 0.85",
            )

    def after_step(self, step: int) -> None:
        """Put back the zeros that the optimizer moved."""
        apply_masks(self.modules, self.masks)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The masks."""
        return dict(self.masks)

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back the masks."""
        self.masks = dict(state)
