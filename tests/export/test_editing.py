import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compressor.export import editing
from compressor.export.session import open_session


def test_past_2_gb_the_weights_go_into_a_file_beside_the_graph(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(editing, "EXTERNAL_DATA_BYTES", 1000)
    editing.save(ir.load(bert.path), tmp_path / "model.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    inputs = {name: tensor.numpy() for name, tensor in bert.example.items()}
    np.testing.assert_array_equal(
        open_session(tmp_path, threads=1).run(inputs),
        open_session(bert.folder, threads=1).run(inputs),
    )


def test_a_graph_output_keeps_its_name(bert):
    graph = ir.load(bert.path).graph
    head = graph.outputs[0].producer()
    new = editing.insert_node(head, "Identity", [head.inputs[0]])
    editing.take_over(head, new.outputs[0])
    assert [value.name for value in graph.outputs] == ["logits"]
    assert graph.outputs[0].producer() is new


def test_the_same_name_is_stored_once(bert):
    graph = ir.load(bert.path).graph
    first = editing.add_initializer(graph, "number", ir.tensor([1]))
    assert editing.add_initializer(graph, "number", ir.tensor([1])) is first


@pytest.mark.parametrize("field", ["doc_string", "metadata_props"])
def test_strip_removes_what_names_sources(bert, field):
    model = ir.load(bert.path)
    next(iter(model.graph)).doc_string = "at /home/someone/model.py:7"
    next(iter(model.graph)).metadata_props["stack"] = "/home/someone/model.py"
    editing.strip(model)
    proto = ir.to_proto(model)
    assert isinstance(proto, onnx.ModelProto)
    assert not any(getattr(node, field) for node in proto.graph.node)
