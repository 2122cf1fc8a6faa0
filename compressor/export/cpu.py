"""Which int8 representation this machine's ONNX Runtime multiplies exactly, and fast.

Activations are uint8, weights int8. Processors with VNNI, and Arm, add the products in int32.
Older x86 processors add two neighbouring products in int16 first (`vpmaddubsw`), and
255 * 127 + 255 * 127 = 64,770 does not fit: the sum is cut at 32,767, silently. The same integers
stored as uint8 with zero point 128 take another kernel, which widens first: exact everywhere,
about 1.3 times slower on such a processor, and slower than int8 on one with VNNI.

A weight whose neighbours of the same sign never add up to more than 128 cannot saturate
(255 * 128 = 32,640) and stays int8 on every machine. Matrices that are rounded here are like that
(`rounding.quantize_product`); a checkpoint's own integers seldom are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from compressor.measure.machine import machine_facts

Preset = Literal["vnni", "arm64", "x86"]
WeightType = Literal["int8", "uint8"]
LARGEST_SAFE_PAIR = 32_767 // 255  # 128


def cpu_preset() -> Preset:
    """`vnni` and `arm64` multiply int8 exactly; `x86` is any other processor, known or not."""
    facts = machine_facts(1)
    features = facts["features"]
    if facts["architecture"] in ("aarch64", "arm64"):
        return "arm64"
    if isinstance(features, list) and {"avx512_vnni", "avx_vnni"} & set(features):
        return "vnni"
    return "x86"


def may_saturate(values: np.ndarray) -> bool:
    """Whether some input can overflow int16 in a sum of two neighbouring products.

    Args:
        values: int8 weights [out, in]; the kernel pairs columns 0 and 1, 2 and 3, ...
    """
    wide = values.astype(np.int16)
    if wide.shape[1] % 2:
        wide = np.pad(wide, ((0, 0), (0, 1)))
    for signed in (wide, -wide):
        kept = np.maximum(signed, 0)
        if (kept[:, 0::2] + kept[:, 1::2]).max(initial=0) > LARGEST_SAFE_PAIR:
            return True
    return False


def weight_type(values: np.ndarray, preset: Preset) -> WeightType:
    """The fastest exact representation of int8 `values` [out, in] on a `preset` machine."""
    return "uint8" if preset == "x86" and may_saturate(values) else "int8"
