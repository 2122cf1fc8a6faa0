"""The integer layers and tables that a compressed-tensors checkpoint stores, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from compressor.checkpoint.arrays import read_array
from compressor.checkpoint.facts import unpacked_shape
from compressor.checkpoint.values import unpack
from compressor.errors import InputError
from compressor.model.tables import is_table

if TYPE_CHECKING:
    import numpy as np

    from compressor.checkpoint.folder import Checkpoint

FORMAT, PACKED, MIXED = "int-quantized", "pack-quantized", "mixed-precision"
Grid = tuple[float, int]
Activation = Literal["dynamic", "float"] | Grid


class QuantizedLinear(NamedTuple):
    """One linear layer, or an embedding table, as stored.

    Attributes:
        values: int8 [out, in], or [rows, width].
        scale: float32 [out, groups]; the weight is values * scale, where every group of
            neighbouring inputs has one scale. One group where inputs are rounded too.
        activation: "dynamic", or (scale, zero point) of the stored input range, with
            input = scale * (q - zero point) and q in [-128, 127]; "float" for inputs as they are,
            and for a table.
        bits: of a value.
    """

    values: np.ndarray
    scale: np.ndarray
    activation: Activation
    bits: int = 8


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

    activation: Activation = "dynamic"
    if input_scale is not None:
        activation = (float(input_scale.item()), 0 if zero_point is None else zero_point.item())
    rows = np.broadcast_to(scale.astype(np.float32).reshape(-1, 1), (len(values), 1))
    return QuantizedLinear(np.array(values), rows.copy(), activation)


def read_integers(checkpoint: Checkpoint) -> dict[str, QuantizedLinear]:
    """The quantized layers and tables of a checkpoint, by module name; floats are not read.

    Raises:
        InputError: integers of another layout.
    """
    tensors = checkpoint.tensors

    def array(name: str) -> np.ndarray | None:
        return read_array(tensors[name]) if name in tensors else None

    found = {}
    for key in tensors:
        name, _, ending = key.rpartition(".")
        if ending != "weight_scale":
            continue
        if f"{name}.weight_zero_point" in tensors:
            raise InputError(f"the weight of {name} is asymmetric", where=str(checkpoint.path))
        if f"{name}.weight_packed" in tensors:
            found[name] = _unpacked(checkpoint, name)
            continue
        _check_layout(checkpoint, name)
        parts = ("weight", "weight_scale", "input_scale", "input_zero_point")
        found[name] = as_arrays(*(array(f"{name}.{part}") for part in parts))
        if is_table(name, checkpoint.model_type):
            found[name] = found[name]._replace(activation="float")
    return found


def _unpacked(checkpoint: Checkpoint, name: str) -> QuantizedLinear:
    """A layer whose weights alone are integers, packed into words."""
    import numpy as np

    (rows, columns), bits = unpacked_shape(checkpoint.tensors[f"{name}.weight_packed"], checkpoint)
    words = read_array(checkpoint.tensors[f"{name}.weight_packed"])
    values = unpack(words, bits, columns).astype(np.int16) - 2 ** (bits - 1)
    scale = read_array(checkpoint.tensors[f"{name}.weight_scale"]).astype(np.float32)
    scale = scale.reshape(rows, -1)
    if not scale.size or columns % scale.shape[1]:
        raise InputError(
            f"{name} has {columns} inputs and {scale.shape[1]} scales a row, which are no whole "
            "groups",
            where=str(checkpoint.path),
        )
    return QuantizedLinear(values.astype(np.int8), scale, "float", bits)


def _check_layout(checkpoint: Checkpoint, name: str) -> None:
    values = checkpoint.tensors.get(f"{name}.weight")
    scales = checkpoint.tensors[f"{name}.weight_scale"].numel
    if values is None:
        found = "not there"
    elif values.dtype != "I8":
        found = f"stored as {values.dtype}"
    elif scales not in (1, values.shape[0]):
        found = f"scaled in groups ({scales} scales for {values.shape[0]} rows)"
    else:
        return
    raise InputError(
        f"the weight of {name} is {found}; expected int8 with one scale per row (format {FORMAT}), "
        f"or packed ({PACKED})",
        where=str(checkpoint.path),
    )
