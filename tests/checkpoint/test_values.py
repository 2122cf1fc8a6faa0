"""Finite or not, and unpacking."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from compressor.checkpoint.arrays import CHUNK
from compressor.checkpoint.header import read_header
from compressor.checkpoint.values import not_finite, refuse_not_finite, unpack
from compressor.errors import InputError


def test_not_finite_counts_over_all_pieces():
    pieces = [np.array([1, np.nan]), np.array([np.inf, -np.inf, np.nan]), np.zeros(3)]
    assert not_finite(pieces) == (2, 2)


def test_the_last_value_of_a_long_tensor_is_looked_at(tmp_path):
    values = np.zeros(2 * CHUNK + 1, np.float16)
    values[-1] = np.nan
    save_file({"long": values, "fine": values[:4]}, tmp_path / "m")
    with pytest.raises(InputError) as caught:
        refuse_not_finite(read_header(tmp_path / "m"), tmp_path)
    assert "long (1 NaN, 0 infinite of 2,097,153)" in caught.value.message
    assert "fine" not in caught.value.message


def test_many_bad_tensors_are_counted(tmp_path):
    save_file({f"t{i}": np.full(2, np.nan, np.float32) for i in range(5)}, tmp_path / "m")
    with pytest.raises(InputError, match=r"t0 .*, t1 .*, t2 .* and 2 more tensors$"):
        refuse_not_finite(read_header(tmp_path / "m"), tmp_path)


def test_unpack_reads_the_lowest_bits_first():
    assert unpack(np.array([[0x8281]], np.int32), 8, 2).tolist() == [[0x81, 0x82]]
    assert unpack(np.array([[-1], [0x21]], np.int32), 4, 3).tolist() == [[15, 15, 15], [1, 2, 0]]
