"""ONNX folders: safe external data, honest counts, layers found behind an exporter's names."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import folders
from checkpoint.folders import FFN, HIDDEN
from compressor.checkpoint.facts import sizes, tensor_facts
from compressor.checkpoint.folder import open_checkpoint, refuse_quantized
from compressor.checkpoint.onnx_graph import open_graph
from compressor.errors import InputError

onnx = pytest.importorskip("onnx")
WEIGHT = "bert.encoder.layer.1.intermediate.dense.weight"


@pytest.fixture
def folder(tmp_path):
    return folders.make_onnx(tmp_path / "graph")


@pytest.fixture
def external(folder):
    """The same folder with its weight in model.onnx.data."""
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    return folder


def change_external(folder, **fields):
    """Rewrite where the graph says that its weight lies."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = model.graph.initializer[0]
    held = {entry.key: entry.value for entry in tensor.external_data} | fields
    del tensor.external_data[:]
    for key, value in held.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def graph(nodes, initializers, inputs=("x",)):
    floats = onnx.TensorProto.FLOAT
    return onnx.helper.make_graph(
        nodes,
        "tiny",
        [onnx.helper.make_tensor_value_info(name, floats, None) for name in inputs],
        [onnx.helper.make_tensor_value_info("y", floats, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )


def node(kind, inputs, outputs, **options):
    return onnx.helper.make_node(kind, inputs, outputs, **options)


def test_a_graph_opens_with_its_facts(folder):
    checkpoint = open_checkpoint(folder)
    assert checkpoint.runtime == "onnxruntime"
    assert checkpoint.model_type == "bert"
    assert checkpoint.layers == 2
    assert checkpoint.labels == ("negative", "positive")
    (fact,) = tensor_facts(checkpoint)
    assert (fact.name, fact.shape, fact.bits, fact.layer) == (WEIGHT, (HIDDEN, FFN), 32, 1)
    assert sizes(checkpoint)["weights"] == 4 * HIDDEN * FFN
    assert sizes(checkpoint)["disk"] == sum(path.stat().st_size for path in folder.iterdir())
    with pytest.raises(InputError, match="an ONNX folder, and prune needs"):
        refuse_quantized(checkpoint, "prune")


def test_external_data_counts_and_is_hashed(external):
    checkpoint = open_checkpoint(external)
    assert sizes(checkpoint)["nonzero"] == 4 * HIDDEN * FFN
    assert checkpoint.disk_bytes > (external / "model.onnx.data").stat().st_size
    before = checkpoint.weights_hash
    data = external / "model.onnx.data"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    assert checkpoint.weights_hash != before


@pytest.mark.parametrize(
    "fields",
    [
        {"location": "/etc/passwd"},
        {"location": "../model.onnx.data"},
        {"location": "./model.onnx.data"},
        {"location": ""},
        {"location": "config.json"},
        {"basepath": "/"},
    ],
)
def test_external_data_elsewhere_is_refused(fields, external):
    change_external(external, **fields)
    with pytest.raises(
        InputError, match=r"must be model.onnx.data or model.onnx_data, a file name"
    ):
        open_checkpoint(external)


def test_links_are_refused(external):
    data = external / "model.onnx.data"
    os.link(data, external.parent / "outside")
    with pytest.raises(InputError, match="a hard link"):
        open_checkpoint(external)
    data.unlink()
    data.symlink_to(external.parent / "outside")
    with pytest.raises(InputError, match="a symbolic link"):
        open_checkpoint(external)
    data.unlink()
    with pytest.raises(InputError, match="which is missing"):
        open_checkpoint(external)


@pytest.mark.parametrize(
    "fields", [{"offset": "-1"}, {"length": "9999"}, {"offset": "1e3"}, {"offset": "9" * 60}]
)
def test_ranges_beyond_the_file_are_refused(fields, external):
    change_external(external, **fields)
    with pytest.raises(InputError, match="the file holds 512 bytes"):
        open_checkpoint(external)


def test_external_data_hidden_in_a_branch_is_found(tmp_path):
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    inner = onnx.helper.make_graph([node("Constant", [], ["c"], value=tensor)], "b", [], [])
    branch = node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    folder = folders.make_onnx(tmp_path / "m", graph([branch], {}))
    with pytest.raises(InputError, match=r"\.\./secret"):
        open_graph(folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "model.onnx is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"<html>", "web page"),
        (b"\xff" * 20, "not an ONNX model"),
        (b"\x08\x07", "holds no graph"),
    ],
)
def test_other_files_are_named(data, words, folder):
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(InputError, match=words):
        open_checkpoint(folder)


def test_a_truncated_graph_is_refused(folder):
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-40])
    with pytest.raises(InputError, match=r"cut off|no graph"):
        open_checkpoint(folder)


def test_nan_is_refused_and_a_masks_infinity_is_not(tmp_path):
    nodes = [node("Add", ["x", "mask"], ["z"]), node("MatMul", ["z", "w"], ["y"])]
    values = {"mask": np.full((2, 2), -np.inf, np.float32), "w": np.ones((2, 2), np.float32)}
    folder = folders.make_onnx(tmp_path / "m", graph(nodes, values))
    assert open_checkpoint(folder)
    values["w"][0] = np.nan
    folders.make_onnx(folder, graph(nodes, values))
    with pytest.raises(InputError, match=r"not finite: w .2 NaN"):
        open_checkpoint(folder)
    assert open_checkpoint(folder, scan_values=False)


def test_values_that_do_not_fit_are_refused(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.initializer[0].dims[0] = 5
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="do not fit its shape"):
        open_checkpoint(folder)


def test_quantized_weights_count_from_their_zero_point(tmp_path):
    values = np.full((4, 4), 128, np.uint8)
    values[0] = 7
    quantized = {
        "a_quantized": values,
        "a_scale": np.float32(0.1).reshape(()),
        "a_zero_point": np.array(128, np.uint8),
        "b_quantized": np.array([[0, 1, 2], [0, 0, 5]], np.int8),
        "b_scale": np.ones(3, np.float32),
        "b_zero_point": np.array([0, 1, 0], np.int8),
        "rows": np.array([[3, 0], [4, 4]], np.int8),
        "rows_zero": np.array([3, 4], np.int8),
        "rows_step": np.ones(2, np.float32),
        "ids": np.arange(6)[None],
    }
    nodes = [
        node("MatMulInteger", ["x", "a_quantized", "", "a_zero_point"], ["p"]),
        node("MatMulInteger", ["p", "b_quantized", "", "b_zero_point"], ["q"]),
        node("DequantizeLinear", ["rows", "rows_step", "rows_zero"], ["r"], axis=0),
        node("Add", ["q", "r"], ["y"]),
    ]
    folder = folders.make_onnx(tmp_path / "m", graph(nodes, quantized))
    facts = {fact.name: fact for fact in tensor_facts(open_checkpoint(folder))}
    assert set(facts) == {"a", "b", "rows"}
    assert (facts["a"].dtype, facts["a"].bits, facts["a"].nonzero) == ("U8", 8, 4)
    assert facts["a"].quantized_from == "F32"
    assert facts["b"].nonzero == 3  # the columns' zeros are 0, 1 and 0
    assert facts["rows"].nonzero == 1  # the rows' zeros are 3 and 4


def test_a_renamed_weight_belongs_to_the_layer_it_feeds(tmp_path):
    scope = ": Bert/bert: BertModel/bert.encoder.layer.3.output.dense: Linear/linear: aten.linear"
    traced = node("MatMul", ["d", "val_4"], ["y"])
    traced.metadata_props.add(key="namespace", value=scope)
    nodes = [
        node("Gather", ["bert.embeddings.word_embeddings.weight", "x"], ["a"]),
        node("MatMulInteger", ["a", "val_1_quantized"], ["b"]),
        node("Cast", ["b"], ["c"], to=1),
        node("Add", ["c", "bert.encoder.layer.2.output.dense.bias"], ["d"]),
        traced,
        node("MatMul", ["d", "onnx::MatMul_9"], ["e"], name="/bert/encoder/layer.5/ffn/MatMul"),
        node("MatMul", ["e", "val_7"], ["f"]),
        node("Add", ["f", "classifier.bias"], ["g"]),
        node("Mul", ["g", "lost"], ["h"]),
    ]
    square = np.ones((2, 2), np.float32)
    names = ["bert.embeddings.word_embeddings.weight", "val_4", "onnx::MatMul_9", "val_7", "lost"]
    values = dict.fromkeys(names, square)
    values |= {"bert.encoder.layer.2.output.dense.bias": square, "classifier.bias": square}
    values |= {"val_1_quantized": np.ones((2, 2), np.int8), "val_1_scale": square}
    folder = folders.make_onnx(tmp_path / "m", graph(nodes, values))
    facts = {fact.name: fact.layer for fact in tensor_facts(open_checkpoint(folder))}
    assert facts == {
        "bert.embeddings.word_embeddings.weight": None,
        "bert.encoder.layer.2.output.dense.bias": 2,
        "val_1": 2,
        "val_4": 3,
        "onnx::MatMul_9": 5,
        "val_7": None,
        "classifier.bias": None,
        "lost": None,
    }


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    folder = folders.make_onnx(tmp_path_factory.mktemp("fuzz") / "m")
    return folder, (folder / "model.onnx").read_bytes()


@settings(max_examples=100, deadline=1000)
@given(data=st.data())
def test_any_changed_byte_is_survived(fuzzed, data):
    folder, whole = fuzzed
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        # The end holds the graph's structure; the values in the middle say nothing new.
        place = data.draw(st.one_of(st.integers(0, 150), st.integers(-60, -1)))
        changed[place] = data.draw(st.integers(0, 255))
    (folder / "model.onnx").write_bytes(changed)
    try:
        facts = tensor_facts(open_checkpoint(folder))
    except InputError as refusal:
        refusal.message.encode()
    else:
        assert all(0 <= fact.nonzero <= fact.numel for fact in facts)
