"""Counts and bytes that can be worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from checkpoint import folders
from checkpoint.folders import FFN, HIDDEN, POSITIONS, WORDS, edit
from compressor.checkpoint.facts import sizes, tensor_facts
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.values import TensorFacts
from compressor.commands.inspect import matrix_ratios
from compressor.errors import InputError

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
# four square matrices, the two of the feed-forward part, and the biases of all six
LAYER = 4 * HIDDEN * HIDDEN + 2 * HIDDEN * FFN
BIASES = 4 * HIDDEN + FFN + HIDDEN
OUTSIDE = (WORDS + POSITIONS + 2) * HIDDEN + HIDDEN * HIDDEN + HIDDEN + 2 * HIDDEN + 2


def facts_of(folder):
    checkpoint = open_checkpoint(folder)
    return checkpoint, {fact.name: fact for fact in tensor_facts(checkpoint)}


def test_dense_floats(folder):
    checkpoint, facts = facts_of(folder)
    count = OUTSIDE + 2 * (LAYER + BIASES)
    assert sizes(checkpoint) == {
        "disk": checkpoint.disk_bytes,
        "weights": 4 * count,
        "nonzero": 4 * count,
        "encoder_weights": 8 * (LAYER + BIASES),
        "encoder_nonzero": 8 * (LAYER + BIASES),
        "matrices": 8 * LAYER,
        "matrices_nonzero": 8 * LAYER,
        "matrices_bitmask": 8 * LAYER + 2 * LAYER // 8,
        "matrices_index": 12 * LAYER,
        "parameters": count,
    }
    query = facts[QUERY]
    assert (query.shape, query.dtype, query.bits, query.numel) == ((8, 8), "F32", 32, 64)
    assert (query.in_encoder, query.layer, query.quantized_from) == (True, 1, None)
    words = facts["bert.embeddings.word_embeddings.weight"]
    assert (words.in_encoder, words.layer) == (False, None)


def test_zeros_count_as_parameters_and_not_as_nonzero(folder):
    dense = sizes(open_checkpoint(folder))
    values = folders.tensors()[QUERY]
    values[:, ::2] = 0.0
    values[0, 0] = -0.0
    edit(folder, **{QUERY.replace(".", "__"): values})
    checkpoint, facts = facts_of(folder)
    sparse = sizes(checkpoint, list(facts.values()))
    assert facts[QUERY].nonzero == 32
    assert sparse["parameters"] == dense["parameters"]
    assert sparse["weights"] == dense["weights"]
    assert sparse["nonzero"] == dense["nonzero"] - 4 * 32
    assert sparse["encoder_nonzero"] == dense["encoder_nonzero"] - 4 * 32


def test_what_positions_of_the_non_zeros_cost_in_each_way_of_counting():
    """Nine zeros of ten in int8 against dense 32-bit floats, by hand."""
    numel = 1_000_000
    one = TensorFacts("layer.0.q.weight", (1000, 1000), "", 8, numel, numel // 10, True, 0, None)
    ratios = matrix_ratios([one], sizes(SimpleNamespace(disk_bytes=0), [one]))
    assert ratios == {
        "as stored": 4,
        "non-zeros, positions not counted": 40,
        "non-zeros and a bit mask": pytest.approx(17.8, abs=0.03),
        "non-zeros and 16-bit positions": pytest.approx(13.3, abs=0.04),
    }


def test_constants_are_no_parameters(folder):
    before = sizes(open_checkpoint(folder))["parameters"]
    edit(
        folder,
        bert__embeddings__position_ids=np.arange(12)[None],
        bert__inv_freq=np.ones(4, np.float32),
    )
    assert sizes(open_checkpoint(folder))["parameters"] == before


def test_an_int8_weight_with_its_scale_is_one_8_bit_tensor(tmp_path):
    folder = folders.make_int8(tmp_path / "m")
    checkpoint, facts = facts_of(folder)
    assert not any("scale" in name for name in facts)
    query = facts[QUERY]
    assert (query.dtype, query.bits, query.nonzero, query.quantized_from) == ("I8", 8, 64, "F32")
    assert sizes(checkpoint)["weights"] == 4 * (OUTSIDE + 2 * BIASES) + 2 * LAYER
    assert sizes(checkpoint)["encoder_nonzero"] == 4 * 2 * BIASES + 2 * LAYER


def test_a_zero_point_stands_for_zero(tmp_path):
    folder = folders.make_int8(tmp_path / "m")
    checkpoint = open_checkpoint(folder)
    values = {name: np.array(_array(info)) for name, info in checkpoint.tensors.items()}
    values[QUERY][:] = 5
    values[QUERY][1] = 0
    values[f"{QUERY}_zero_point"] = np.array([5, 0, *[3] * 6], np.int8)[:, None]
    folders.save_file(values, folder / "model.safetensors")
    assert facts_of(folder)[1][QUERY].nonzero == 6 * 8
    values[f"{QUERY}_zero_point"] = np.zeros((3, 1), np.int8)
    folders.save_file(values, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"\[8, 8\] does not fit .*zero_point of shape \[3, 1\]"):
        facts_of(folder)


def _array(info):
    from compressor.checkpoint.arrays import read_array

    return read_array(info)


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """compressed-tensors' packing, by Python's own big integers: [rows, columns] -> int32 words."""
    rows = []
    for row in values + (1 << (bits - 1)):
        number = sum(int(value) << (bits * index) for index, value in enumerate(row))
        words = -(-len(row) * bits // 32)
        rows.append(np.frombuffer(number.to_bytes(4 * words, "little"), "<i4"))
    return np.stack(rows)


@pytest.mark.parametrize("bits", [4, 8, 3])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_packed_integers(bits, asymmetric, tmp_path):
    values = folders.tensors()
    low = -(1 << (bits - 1))
    draw = np.random.default_rng(0)
    for name in list(values):
        if ".layer." in name and name.endswith(".weight"):
            rows, columns = values.pop(name).shape
            whole = draw.integers(low, -low, (rows, columns))
            zeros = np.full((rows, 2), 1 if asymmetric else 0)
            zeros[:, 1] -= asymmetric  # one zero point for each half of the inputs
            whole[:, :3] = zeros[:, :1]
            whole[:, -1:] = zeros[:, 1:]
            expected = np.count_nonzero(whole != np.repeat(zeros, columns // 2, axis=1))
            values[f"{name}_packed"] = pack(whole, bits)
            values[f"{name}_shape"] = np.array([rows, columns])
            values[f"{name}_scale"] = np.ones((rows, 2), np.float16)
            if asymmetric:
                values[f"{name}_zero_point"] = np.ascontiguousarray(pack(zeros.T, bits).T)
            if name == QUERY:
                query = expected
    quantization = {
        **folders.QUANTIZATION,
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": bits}}},
    }
    folder = folders.make(tmp_path / "m", values=values, quantization_config=quantization)
    fact = facts_of(folder)[1][QUERY]
    assert (fact.shape, fact.dtype, fact.bits) == ((8, 8), f"I{bits}", bits)
    assert fact.nonzero == query
    assert (fact.quantized_from, fact.layer) == ("F16", 1)


def test_packing_as_the_sheet_says():
    assert pack(np.array([[1, 2]]), 8)[0, 0] == 0x8281


def test_packed_without_a_shape_is_refused(tmp_path):
    values = folders.tensors()
    for name in [n for n in values if ".query.weight" in n]:
        values[f"{name}_packed"] = values.pop(name).astype(np.int32)
    folder = folders.make(tmp_path / "m", values=values, quantization_config=folders.QUANTIZATION)
    with pytest.raises(InputError, match="no weight_shape says what it unpacks to"):
        facts_of(folder)
