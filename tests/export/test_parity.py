from itertools import product

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compressor.errors import GateError
from compressor.export import parity
from compressor.export.integers import quantize_graph
from compressor.export.parity import check_parity, random_inputs
from compressor.export.simulate import simulated_int8

from . import families


def changed(bert, folder, name, change):
    """The exported graph with one weight changed."""
    model = onnx.load(bert.path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, folder / "model.onnx")


def test_the_right_graph_passes_and_numbers_come_back(bert):
    facts = check_parity(bert.model, bert.folder, random_inputs(bert.model, bert.example))
    assert 0 <= facts["error"] <= facts["tolerance"] == 1e-4
    assert facts["agreement"] == 1.0
    assert len(facts["shapes"]) == 2


def test_every_batch_and_length(bert, tmp_path, monkeypatch):
    """Right- and left-padded, of one row and one token, and of the most tokens."""
    shapes = list(product((1, 2, 7), (1, 17, 60, 128)))
    monkeypatch.setattr(parity, "SHAPES", shapes)
    facts = check_parity(bert.model, bert.folder, random_inputs(bert.model, bert.example))
    assert facts["shapes"] == [list(shape) for shape in shapes]
    assert facts["largest_difference"] < 1e-5
    quantize_graph(bert.path, tmp_path / "model.onnx")
    facts = int8_parity(bert, tmp_path)
    assert facts["error"] <= 1.5 * facts["rounding_error"]


def test_an_impossible_tolerance_refuses_the_same_graph(bert):
    make_inputs = random_inputs(bert.model, bert.example)
    with pytest.raises(GateError, match=r"float graph differs .* allowed are 0\.00e\+00"):
        check_parity(bert.model, bert.folder, make_inputs, tolerance=0.0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bert.encoder.layer.1.output.dense.weight", lambda w: w * 1.05),
        ("classifier.weight", lambda w: w * np.nan),
        ("bert.embeddings.token_type_embeddings.weight", lambda w: w[::-1]),
    ],
)
def test_a_wrong_weight_is_refused(bert, tmp_path, name, change):
    changed(bert, tmp_path, name, change)
    with pytest.raises(GateError):
        check_parity(bert.model, tmp_path, random_inputs(bert.model, bert.example))


def int8_parity(bert, folder, **options):
    simulation = simulated_int8(bert.model, None, embeddings=True)
    make_inputs = random_inputs(bert.model, bert.example)
    return check_parity(bert.model, folder, make_inputs, simulation=simulation, **options)


def test_int8_is_allowed_what_rounding_costs(bert, tmp_path):
    quantize_graph(bert.path, tmp_path / "model.onnx")
    facts = int8_parity(bert, tmp_path)
    assert facts["error"] > 1e-4
    assert facts["error"] <= 1.5 * facts["rounding_error"]
    with pytest.raises(GateError, match="int8 graph differs"):
        int8_parity(bert, tmp_path, tolerance=1e-4)


def test_a_wrong_int8_scale_is_refused(bert, tmp_path):
    quantize_graph(bert.path, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "classifier.weight_scale":
            larger = numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(numpy_helper.from_array(larger, tensor.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(GateError):
        int8_parity(bert, tmp_path)


def test_random_inputs_are_padded_on_both_sides_and_repeatable(bert):
    inputs = random_inputs(bert.model, bert.example)(5, 23)
    mask = inputs["attention_mask"]
    assert mask[0].all()
    assert mask[1, 0] == 0
    assert mask[1, -1] == 1
    assert (mask[2:, 0] == 1).all()
    assert (mask[2:, -1] == 0).all()
    ids = inputs["input_ids"]
    assert (ids[mask == 0] == 0).all()
    assert ids[mask == 1].min() > 1  # no special token
    assert ids.max() > 500  # up to the vocabulary's end
    assert inputs["token_type_ids"].any()
    again = random_inputs(bert.model, bert.example)(5, 23)
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)


def test_every_t5_row_ends_with_its_token():
    head = "AutoModelForSeq2SeqLM"
    inputs = random_inputs(families.build("t5", head), families.example("t5", head))(5, 23)
    assert set(inputs) == {"input_ids", "attention_mask", "decoder_input_ids"}
    assert ((inputs["input_ids"] == 1).sum(dim=1) == 1).all()
    last = inputs["attention_mask"].flip(1).argmax(dim=1)
    assert (inputs["input_ids"].flip(1)[torch.arange(5), last] == 1).all()
