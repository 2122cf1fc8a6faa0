"""Reading an exported file back."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from compressor.export.export import Exporter


def export_folder(model, tokenizer, example, folder: Path, **options) -> dict:
    """What `Exporter` makes of a model; its own options, and those of `Exporter.export`."""
    fixed = {
        field.name: options.pop(field.name) for field in fields(Exporter) if field.name in options
    }
    return Exporter(model, tokenizer, example, **fixed).export(folder, **options)


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def stored_integers(found: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The int8 values [out, in] of a module, whichever representation the file has."""
    values = found[f"{name}.weight_quantized"].astype(np.int16)
    zero = np.unique(found[f"{name}.weight_zero_point"]).astype(np.int16)
    return (values - zero).T


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]
