"""Parameters, zeros and bits of each layer of a checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from compressor.checkpoint.values import TensorFacts

OUTSIDE = "outside the layers"


def layer_rows(facts: Sequence[TensorFacts], most: int | None = None) -> list[dict[str, Any]]:
    """Parameters, zeros, bits and bytes of everything outside the layers and of each layer.

    Zeros and bits of a weight are those of matrices (two dimensions or more): biases and norms
    are never pruned and stay in float.

    Args:
        facts: every parameter.
        most: layers that get a row of their own; where there are more, neighbours share one.

    Returns:
        A row each: "part" (a name), "layers" (the numbers of the first and the last layer; None
        outside them), "parameters", "sparsity" (0 to 1), "bits" (every width that occurs),
        "bits_per_weight" (their mean over the weights; None where there is no matrix), "bytes".
    """
    depth = 1 + max((fact.layer for fact in facts if fact.layer is not None), default=-1)
    span = max(1, -(-depth // most)) if most else 1
    groups: dict[int, list[TensorFacts]] = defaultdict(list)
    for fact in facts:
        groups[-1 if fact.layer is None else fact.layer // span].append(fact)
    return [_row(groups[number]) for number in sorted(groups)]


def _row(tensors: Sequence[TensorFacts]) -> dict[str, Any]:
    layers = sorted({tensor.layer for tensor in tensors if tensor.layer is not None})
    matrices = [tensor for tensor in tensors if len(tensor.shape) >= 2]
    weights = sum(tensor.numel for tensor in matrices)
    bits = sum(tensor.numel * tensor.bits for tensor in matrices)
    return {
        "part": _name(layers),
        "layers": [layers[0], layers[-1]] if layers else None,
        "parameters": sum(tensor.numel for tensor in tensors),
        "sparsity": sparsity(sum(tensor.nonzero for tensor in matrices), weights),
        "bits": sorted({tensor.bits for tensor in tensors}),
        "bits_per_weight": round(bits / weights, 6) if weights else None,
        "bytes": sum(tensor.numel * tensor.bits for tensor in tensors) // 8,
    }


def _name(layers: Sequence[int]) -> str:
    if not layers:
        return OUTSIDE
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"


def sparsity(nonzero: int, numel: int) -> float:
    """The share of zeros, 0 to 1."""
    return round(1 - nonzero / numel, 6) if numel else 0.0
