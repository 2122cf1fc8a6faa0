"""What methods that look at a layer's inputs share: layer after layer, and how outputs change."""

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

    Change = Callable[[Sequence[str], list[torch.Tensor], torch.Tensor], list[torch.Tensor]]


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


def change_layer_by_layer(
    model: nn.Module, modules: dict[str, nn.Module], batches: Sequence[Batch], change: Change
) -> float:
    """Change the linear maps of one transformer layer after the other, in place.

    The rows run through the whole model once for each layer, so that a layer is fed what the
    layers before it give now that they are changed. Within a layer all maps see it as it was.

    Args:
        model: a transformers model.
        modules: the linear maps to change, by full name.
        batches: what the model is fed.
        change: from the names of the maps that share an input, their weights, float64 [out, in]
            each, and their X^T X, float64 [in, in], to the new weights.

    Returns:
        The relative squared error of a map's output on the rows, a mean over all maps.
    """
    import torch

    errors: list[float] = []
    layers = by_layer(model, modules)
    with console.Progress("calibrating", len(layers), unit="layers") as progress, torch.no_grad():
        for linears in layers:
            for names, products in input_products(model, linears, batches).items():
                before = [in_rows(linears[name]).double() for name in names]
                after = change(names, before, products)
                for name, old, new in zip(names, before, after, strict=True):
                    errors.append(relative_error(old, new, products))
                    in_rows(linears[name]).copy_(new)
            progress.advance(output_error=f"{errors[-1]:.3f}")
    return sum(errors) / len(errors)


def inverse_factor(products: torch.Tensor, damp: float) -> torch.Tensor:
    """U, upper triangular [in, in], with U^T U the inverse of the damped products.

    Inputs that are always zero get the mean of the diagonal. Where rounding leaves the matrix
    without a factor, the damping is raised tenfold, and said so.

    Args:
        products: X^T X, float64 [in, in], finite.
        damp: share of the mean of the diagonal that is added to it.
    """
    import torch

    diagonal = products.diagonal()
    live = diagonal > 0
    mean = diagonal[live].mean() if live.any() else diagonal.new_ones(())
    filled = products + torch.diag(torch.where(live, 0.0, mean))
    while True:
        lower, failed = torch.linalg.cholesky_ex(
            filled + torch.diag((damp * mean).expand(len(live)))
        )
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
        if not failed:
            return upper
        damp *= 10
        console.note(f"the inputs' products are too close to singular; damping raised to {damp:g}")
