"""Rows of layers, by hand: two matrices of eight weights each and a bias."""

from __future__ import annotations

import pytest

from compressor.checkpoint.facts import tensor_facts
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.layers import OUTSIDE, layer_rows
from compressor.checkpoint.values import TensorFacts


def fact(layer, bits=32, nonzero=8, shape=(2, 4)):
    numel = shape[0] * (shape[1] if len(shape) == 2 else 1)
    return TensorFacts(
        f"x.{layer}", shape, "", bits, numel, nonzero, layer is not None, layer, None
    )


def test_zeros_and_bits_are_those_of_matrices():
    bias = fact(0, nonzero=0, shape=(4,))
    (row,) = layer_rows([fact(0, bits=8, nonzero=2), fact(0, bits=4, nonzero=4), bias])
    assert row == {
        "part": "layer 0",
        "layers": [0, 0],
        "parameters": 20,
        "sparsity": 1 - 6 / 16,
        "bits": [4, 8, 32],
        "bits_per_weight": 6,
        "bytes": (8 * 8 + 8 * 4 + 4 * 32) // 8,
    }


def test_rows_stand_in_the_order_of_layers_after_what_is_outside():
    rows = layer_rows([fact(10), fact(2), fact(None)])
    assert [row["part"] for row in rows] == [OUTSIDE, "layer 2", "layer 10"]
    assert [row["layers"] for row in rows] == [None, [2, 2], [10, 10]]


def test_without_a_matrix_there_are_no_bits_of_a_weight():
    (row,) = layer_rows([fact(None, shape=(4,), nonzero=0)])
    assert (row["bits_per_weight"], row["sparsity"]) == (None, 0.0)


def test_neighbours_of_a_deep_model_share_a_row():
    facts = [fact(None), *(fact(index, nonzero=index % 2 * 8) for index in range(10))]
    rows = layer_rows(facts, most=4)
    assert [row["layers"] for row in rows] == [None, [0, 2], [3, 5], [6, 8], [9, 9]]
    assert [row["part"] for row in rows[1:3]] == ["layers 0 to 2", "layers 3 to 5"]
    assert [row["sparsity"] for row in rows[1:]] == pytest.approx(
        [2 / 3, 1 / 3, 2 / 3, 0], abs=1e-6
    )
    assert len(layer_rows(facts, most=10)) == 11
    # One name with an absurd number costs no more than any other.
    assert len(layer_rows([fact(10**9), fact(0)], most=4)) == 2


def test_of_a_folder(folder):
    rows = layer_rows(tensor_facts(open_checkpoint(folder)))
    assert [row["part"] for row in rows] == [OUTSIDE, "layer 0", "layer 1"]
    assert all(row["bits_per_weight"] == 32 for row in rows)
