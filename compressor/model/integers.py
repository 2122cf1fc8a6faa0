"""The int8 layers that a compressed-tensors folder stores, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from compressor.checkpoint.arrays import read_array
from compressor.checkpoint.header import TensorInfo
from compressor.checkpoint.shards import read_tensors
from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np

FORMAT, PACKED = "int-quantized", "pack-quantized"
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
    values: np.ndarray,
    scale: np.ndarray,
    input_scale: np.ndarray | None,
    zero_point: np.ndarray | None,
) -> QuantizedLinear:
    """The tensors of one layer as they are described above.

    Args:
        values: int8 [out, in].
        scale: one scale, or one per row.
        input_scale: [1] of static activations.
        zero_point: int8 [1] of asymmetric ones.
    """
    import numpy as np

    activation: Literal["dynamic"] | Grid = "dynamic"
    if input_scale is not None:
        activation = (float(input_scale.item()), 0 if zero_point is None else zero_point.item())
    rows = np.broadcast_to(scale.astype(np.float32).reshape(-1, 1), (len(values), 1))
    return QuantizedLinear(np.array(values), rows.copy(), activation)


def read_integers(folder: Path) -> dict[str, QuantizedLinear]:
    """The int8 layers of a checkpoint folder, by module name; float tensors are not read.

    Raises:
        InputError: int8 or int4 weights of another layout.
    """
    tensors = read_tensors(folder)

    def array(name: str) -> np.ndarray | None:
        return read_array(tensors[name]) if name in tensors else None

    found = {}
    for key, scale in tensors.items():
        name, _, ending = key.rpartition(".")
        if ending != "weight_scale":
            continue
        if f"{name}.weight_zero_point" in tensors:
            raise InputError(f"the weight of {name} is asymmetric", where=str(folder))
        _check_layout(folder, name, tensors.get(f"{name}.weight"), scale.numel)
        parts = ("weight", "weight_scale", "input_scale", "input_zero_point")
        found[name] = as_arrays(*(array(f"{name}.{part}") for part in parts))
    return found


def _check_layout(folder: Path, name: str, values: TensorInfo | None, scales: int) -> None:
    if values is None:
        found = "packed into words or not there"
    elif values.dtype != "I8":
        found = f"stored as {values.dtype}"
    elif scales not in (1, values.shape[0]):
        found = f"scaled in groups ({scales} scales for {values.shape[0]} rows)"
    else:
        return
    raise InputError(
        f"the weight of {name} is {found}; expected int8 with one scale per row (format {FORMAT})",
        where=str(folder),
    )
