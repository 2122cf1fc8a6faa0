"""One exported BERT for all tests of this room: tracing takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from . import families


@dataclass(frozen=True)
class Exported:
    """A model, its inputs, and the folder with its float graph."""

    model: object
    example: dict
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "model.onnx"


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Exported:
    """A BERT classifier for 128 tokens, whose word table is above 64 kB."""
    from compressor.export.graph import export_graph

    folder = tmp_path_factory.mktemp("float")
    model = families.build("bert", vocab_size=600, max_position_embeddings=128)
    example = families.example("bert")
    export_graph(model, example, folder / "model.onnx")
    return Exported(model, example, folder)


@pytest.fixture
def product(tmp_path):
    """Writes a float graph `logits = x @ matrix` (matrix [in, out]) and returns its path."""

    def write(matrix) -> Path:
        from onnx import TensorProto, helper, numpy_helper

        inside, outside = matrix.shape
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "matrix"], ["logits"], name="product")],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", inside])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outside])],
            [numpy_helper.from_array(matrix.astype("float32"), "matrix")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return write
