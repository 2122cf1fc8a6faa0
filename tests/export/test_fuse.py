import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.export.fuse import fuse

from .graphs import kinds

HIDDEN = 8
PICK_FIRST = helper.make_node("Gather", ["out", "zero"], ["logits"], axis=1)


def layer(tmp_path, pick=PICK_FIRST, table=None):
    """x -> matrix -> reshape there and back -> residual sum -> norm -> first token."""
    draw = np.random.default_rng(0)
    constants = {
        "matrix": draw.normal(size=(HIDDEN, HIDDEN)).astype("f"),
        "offset": np.ones(HIDDEN, "f") if table is None else table,
        "gain": np.ones(HIDDEN, "f"),
        "zero": np.array(0),
        "wide": np.array([0, 0, 2, HIDDEN // 2]),
        "flat": np.array([0, 0, HIDDEN]),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "matrix"], ["a"]),
        helper.make_node("Reshape", ["a", "wide"], ["b"]),
        helper.make_node("Reshape", ["b", "flat"], ["c"]),
        helper.make_node("Add", ["c", "offset"], ["d"]),
        helper.make_node("Add", ["d", "x"], ["e"]),
        helper.make_node("LayerNormalization", ["e", "gain"], ["out"], axis=-1),
        pick,
    ]
    shape = ["batch", "length", HIDDEN]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in [*"acde", "out"]]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        value_info=values,
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 23)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def fused(path):
    """The facts of `fuse` and the outputs before and after."""
    x = np.random.default_rng(1).normal(size=(3, 5, HIDDEN)).astype("f")
    before = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
    model = ir.load(path)
    facts = fuse(model)
    ir.save(model, path)
    return facts, before, onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


def test_every_rewrite_keeps_the_result(tmp_path):
    path = layer(tmp_path)
    facts, before, after = fused(path)
    assert facts == {"reshapes_removed": 1, "residual_sums": 1, "first_token_nodes": 4}
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert kinds(path) == ["Slice", "MatMul", "Add", "Sum", "LayerNormalization", "Gather"]


def test_another_token_or_all_tokens_are_left_alone(tmp_path):
    for pick in (
        helper.make_node("Gather", ["out", "gain_index"], ["logits"], axis=1),
        helper.make_node("ReduceMean", ["out"], ["logits"], axes=None),
        helper.make_node("Gather", ["out", "zero"], ["logits"], axis=2),
    ):
        path = layer(tmp_path, pick)
        model = onnx.load(path)
        model.graph.initializer.append(numpy_helper.from_array(np.array(2), "gain_index"))
        onnx.save(model, path)
        facts, before, after = fused(path)
        assert facts["first_token_nodes"] == 0
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_constant_that_differs_by_token_ends_the_region(tmp_path):
    table = np.random.default_rng(2).normal(size=(1, 5, HIDDEN)).astype("f")
    facts, before, after = fused(layer(tmp_path, table=table))
    assert facts["first_token_nodes"] == 0  # no product is left in the region
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_last_layer_of_bert_computes_one_token(bert):
    model = onnx.load(bert.path)
    slices = [node for node in model.graph.node if node.name.startswith("first_token_")]
    assert len(slices) == 2  # what the last layer reads, and its mask
    last = [node for node in model.graph.node if node.op_type == "Attention"][-1]
    assert last.input[3].startswith("first_token_of_")
    assert not last.input[1].startswith("first_token_of_")  # every key is needed


@pytest.mark.parametrize("kind", ["Reshape", "Transpose", "Softmax", "Erf"])
def test_attention_and_gelu_are_one_node(bert, kind):
    found = kinds(bert.path)
    assert kind not in found
    assert (found.count("Attention"), found.count("Gelu")) == (2, 2)
