"""The int8 layers that a compressed-tensors folder stores, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch

FORMAT = "int-quantized"
Grid = tuple[float, int]


class QuantizedLinear(NamedTuple):
    """One int8 linear layer as stored.

    Attributes:
        values: int8 [out, in].
        scale: float32 [out, 1]; the weight is values * scale.
        activation: "dynamic", or (scale, zero point) of the stored input range, with
            input = scale * (q - zero point) and q in [-128, 127].
    """

    values: np.ndarray
    scale: np.ndarray
    activation: Literal["dynamic"] | Grid


def as_arrays(
    values: torch.Tensor,
    scale: torch.Tensor,
    input_scale: torch.Tensor | None,
    zero_point: torch.Tensor | None,
) -> QuantizedLinear:
    """Torch tensors of one layer as arrays.

    Args:
        values: int8 [out, in].
        scale: one scale, or one per row.
        input_scale: [1] of static activations.
        zero_point: int8 [1] of asymmetric ones.
    """
    activation: Literal["dynamic"] | Grid = "dynamic"
    if input_scale is not None:
        activation = (input_scale.item(), 0 if zero_point is None else zero_point.item())
    rows = scale.detach().float().reshape(-1, 1).expand(len(values), 1)
    return QuantizedLinear(values.cpu().numpy(), rows.cpu().numpy().copy(), activation)


def read_integers(folder: Path) -> dict[str, QuantizedLinear]:
    """The int8 layers of a checkpoint folder, by module name; float tensors are not read.

    Raises:
        InputError: int8 or int4 weights of another layout.
    """
    from contextlib import ExitStack

    from safetensors import safe_open

    with ExitStack() as stack:
        homes: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            opened = stack.enter_context(safe_open(path, framework="pt"))
            homes.update(dict.fromkeys(opened.keys(), opened))

        def tensor(name: str) -> torch.Tensor | None:
            return homes[name].get_tensor(name) if name in homes else None

        found = {}
        for key in homes:
            name, _, ending = key.rpartition(".")
            if ending != "weight_scale":
                continue
            values, scale = tensor(f"{name}.weight"), tensor(key)
            if f"{name}.weight_zero_point" in homes:
                raise InputError(f"the weight of {name} is asymmetric", where=str(folder))
            _check_layout(folder, name, values, scale.numel())
            inputs = tensor(f"{name}.input_scale"), tensor(f"{name}.input_zero_point")
            found[name] = as_arrays(values, scale, *inputs)
    return found


def _check_layout(folder: Path, name: str, values: torch.Tensor | None, scales: int) -> None:
    import torch

    if values is None:
        found = "packed into words or not there"
    elif values.dtype != torch.int8:
        found = f"stored as {values.dtype}"
    elif scales not in (1, len(values)):
        found = f"scaled in groups ({scales} scales for {len(values)} rows)"
    else:
        return
    raise InputError(
        f"the weight of {name} is {found}; expected int8 with one scale per row (format {FORMAT})",
        where=str(folder),
    )
