"""The header reader: every rule of the format by name, and any bytes at all in words."""

from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from checkpoint.folders import entry, tensors, write_raw
from compressor.checkpoint.arrays import read_array, read_chunks
from compressor.checkpoint.header import STORED_AS, read_header
from compressor.errors import InputError

ONE = {"a": entry([2], 0, 8)}
BROKEN = {
    "length-2^63": ({"header": b"{", "length": 2**63}, "claims 9,223,372,036,854,775,808 bytes"),
    "length-negative": ({"header": b"{", "length": 2**64 - 1}, "at most 5,000,000 are read"),
    "length-100-MB": ({"header": b"{", "length": 100_000_001}, "claims 100,000,001 bytes"),
    "not-json": ({"header": b"{nonsense}"}, "not JSON"),
    "list": ({"header": b"[1]"}, "does not start with {"),
    "twice": (
        {
            "header": b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            "data": b"x",
        },
        "the key a stands there twice",
    ),
    "overlap": (
        {"header": {"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, "data": b"x" * 12},
        "tensor b: its range of bytes overlaps",
    ),
    "hole": (
        {"header": {"a": entry([2], 0, 8), "b": entry([2], 12, 20)}, "data": b"x" * 20},
        "tensor b: its range of bytes leaves a hole before",
    ),
    "same-range": (
        {"header": {"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, "data": b"x" * 8},
        "tensor b: its range of bytes overlaps",
    ),
    "backwards": ({"header": {"a": entry([2], 8, 0)}}, "not a range of bytes"),
    "shape-and-range": (
        {"header": {"a": entry([3], 0, 8)}, "data": b"x" * 8},
        "shape [3] of F32 needs 12 bytes, its range holds 8",
    ),
    "shape-overflow": (
        {"header": {"a": entry([2**62, 2**62], 0, 8)}, "data": b"x" * 8},
        "needs 85,070,591,730,234,615,865,843,651,857,942,052,864 bytes",
    ),
    "many-dimensions": (
        {"header": {"a": entry([10**18] * 100_000, 0, 8)}, "data": b"x" * 8},
        "is not a list of sizes",
    ),
    "shape-negative": ({"header": {"a": entry([-2], 0, 8)}}, "is not a list of sizes"),
    "shape-true": ({"header": {"a": entry([True], 0, 4)}, "data": b"xxxx"}, "not a list of sizes"),
    "shape-float": ({"header": {"a": entry([2.0], 0, 8)}, "data": b"x" * 8}, "not a list of sizes"),
    "dtype": ({"header": {"a": entry([2], 0, 8, "F31")}}, "dtype F31 is none of BOOL"),
    "fields": ({"header": {"a": {"dtype": "F32"}}}, "expected exactly dtype, shape and data"),
    "name": ({"header": {"a\x1b[2J": entry([2], 0, 8)}, "data": b"x" * 8}, "cannot be printed"),
    "metadata": ({"header": {"__metadata__": {"a": 1}}}, "must map texts to texts"),
    "cut": ({"header": ONE, "data": b"x" * 7}, "holds 76 bytes, its header promises 77"),
    "surplus": ({"header": ONE, "data": b"x" * 9}, "holds 78 bytes, its header promises 77"),
    "nothing-promised": ({"header": {}, "data": b"polyglot"}, "its header promises 10"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_header_is_named(name, tmp_path):
    how, words = BROKEN[name]
    file = write_raw(tmp_path / "model.safetensors", **how)
    with pytest.raises(InputError) as caught:
        read_header(file)
    assert words in caught.value.message
    assert "model.safetensors" in caught.value.message
    assert len(caught.value.message) < 400


def test_reads_what_safetensors_writes(tmp_path):
    values = {**tensors(), "empty": np.zeros((0, 3), np.float32), "one": np.float16(3)[None]}
    save_file(values, tmp_path / "m", metadata={"format": "pt"})
    infos = read_header(tmp_path / "m")
    assert set(infos) == set(values)
    for name, info in infos.items():
        assert info.shape == values[name].shape
        assert info.nbytes == values[name].nbytes
        assert info.numel * info.bits == 8 * info.nbytes
        np.testing.assert_array_equal(read_array(info), values[name])


def test_bfloat16_is_widened(tmp_path):
    bits = np.array([0x3F80, 0xC000, 0x7FC0, 0x0000], "<u2")  # 1, -2, NaN, 0
    header = {"a": entry([4], 0, 8, "BF16")}
    info = read_header(write_raw(tmp_path / "m", header, bits.tobytes()))["a"]
    array = read_array(info)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [1, -2, np.nan, 0])
    np.testing.assert_array_equal(np.concatenate(list(read_chunks(info))), array)
    assert info.bits == 16


def test_a_length_that_spells_something_is_no_mistake(tmp_path):
    # 0x3C20 bytes of header begin with " <", as a web page might.
    text = json.dumps(ONE).encode().ljust(0x3C20)
    file = write_raw(tmp_path / "m", text, b"x" * 8)
    assert list(read_header(file)) == ["a"]


@pytest.mark.parametrize("length", [2**63, 5_000_001])
def test_a_hostile_length_costs_no_memory(length, tmp_path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as handle:
        handle.write(struct.pack("<Q", length) + b"{")
        handle.truncate(200_000_000)  # sparse: no disk is used
    tracemalloc.start()
    with pytest.raises(InputError):
        read_header(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


numbers = st.one_of(
    st.integers(-2, 40), st.sampled_from([2**31, 2**63, 10**25, True, None, 1.5, "8", []])
)
entries = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from([*STORED_AS, "F31"]), st.integers(0, 3)),
            "shape": st.one_of(st.lists(numbers, max_size=4), st.integers()),
            "data_offsets": st.one_of(st.lists(numbers, max_size=3), st.none()),
        },
        optional={"extra": st.integers()},
    ),
)
headers = st.dictionaries(st.one_of(st.text(max_size=5), st.just("__metadata__")), entries)
FUZZ = settings(
    max_examples=100, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(file):
    """The property: infos that lie inside the file, or a refusal; never another exception."""
    try:
        infos = read_header(file)
    except InputError as refusal:
        refusal.message.encode()
        return None
    with safe_open(file, "np") as library:  # what passes here must pass there
        assert set(library.keys()) == set(infos)
    size = file.stat().st_size
    for info in infos.values():
        assert 0 <= info.start <= info.end <= size
        assert read_array(info).shape == info.shape
    return infos


@FUZZ
@given(header=headers, data=st.binary(max_size=64))
def test_any_header_is_read_or_refused(tmp_path, header, data):
    read_or_refuse(write_raw(tmp_path / "m", json.dumps(header).encode(), data))


@FUZZ
@given(text=st.binary(max_size=200), length=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_bytes_are_read_or_refused(tmp_path, text, length):
    read_or_refuse(write_raw(tmp_path / "m", text, length=length))
    (tmp_path / "raw").write_bytes(text)
    read_or_refuse(tmp_path / "raw")


@FUZZ
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5), flip=st.data())
def test_a_whole_file_is_read_and_one_changed_byte_is_survived(tmp_path, sizes, flip):
    save_file({f"t{i}": np.ones(n, np.float32) for i, n in enumerate(sizes)}, tmp_path / "m")
    assert read_or_refuse(tmp_path / "m") is not None
    data = bytearray((tmp_path / "m").read_bytes())
    data[flip.draw(st.integers(0, len(data) - 1))] = flip.draw(st.integers(0, 255))
    (tmp_path / "m").write_bytes(data)
    read_or_refuse(tmp_path / "m")
