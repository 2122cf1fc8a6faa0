"""What pruning by a layer's inputs shares: layer after layer, and how much the outputs change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from compressor import console
from compressor.methods.contract import Batch
from compressor.model.calibration import input_products
from compressor.model.layers import by_layer, in_rows

if TYPE_CHECKING:
    import torch
    from torch import nn

    Prune = Callable[[list[torch.Tensor], torch.Tensor], list[torch.Tensor]]


def relative_error(before: torch.Tensor, after: torch.Tensor, products: torch.Tensor) -> float:
    """||X (W' - W)^T||^2 / ||X W^T||^2, from X^T X alone; 0 where the outputs are all zero.

    Args:
        before: W, [out, in].
        after: W', [out, in].
        products: X^T X, [in, in].
    """
    change = after - before
    whole = float(((before @ products) * before).sum())
    return float(((change @ products) * change).sum()) / whole if whole else 0.0


def prune_layer_by_layer(
    model: nn.Module, modules: dict[str, nn.Module], batches: Sequence[Batch], prune: Prune
) -> float:
    """Prune the linear maps of one transformer layer after the other, in place.

    The rows run through the whole model once for each layer, so that a layer is fed what the
    layers before it give now that they are pruned. Within a layer all maps see the dense layer.

    Args:
        model: a transformers model.
        modules: the linear maps to prune, by full name.
        batches: what the model is fed.
        prune: from the weights of the maps that share an input, float64 [out, in] each, and their
            X^T X, float64 [in, in], to the new weights.

    Returns:
        The relative squared error of a map's output on the rows, a mean over all maps.
    """
    import torch

    errors: list[float] = []
    layers = by_layer(model, modules)
    with console.Progress("pruning", len(layers), unit="layers") as progress, torch.no_grad():
        for linears in layers:
            for names, products in input_products(model, linears, batches).items():
                before = [in_rows(linears[name]).double() for name in names]
                after = prune(before, products)
                for name, old, new in zip(names, before, after, strict=True):
                    errors.append(relative_error(old, new, products))
                    in_rows(linears[name]).copy_(new)
            progress.advance(output_error=f"{errors[-1]:.3f}")
    return sum(errors) / len(errors)
