"""Sparse checkpoints without their zeros: the same bits come back, and damage is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from checkpoint import folders
from checkpoint.folders import entry, write_raw
from compressor.checkpoint import packed
from compressor.checkpoint.arrays import CHUNK, read_array, read_chunks, read_stored
from compressor.checkpoint.facts import sizes, tensor_facts
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.header import STORED_AS, read_header
from compressor.checkpoint.packed import pack, unpacked
from compressor.checkpoint.shards import INDEX, SINGLE, packed_name
from compressor.errors import InputError, MachineError

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
SHAPES = '{"a": [2, 4]}'


def sparse(values: dict[str, np.ndarray], share: float = 0.9) -> dict[str, np.ndarray]:
    """The same tensors with zeros in the matrices inside the layers."""
    draw = np.random.default_rng(1)
    made = dict(values)
    for name, value in values.items():
        if ".layer." in name and value.ndim == 2:
            made[name] = value * (draw.random(value.shape) >= share).astype(value.dtype)
    return made


def bits(folder) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a folder: number format, shape and bytes."""
    tensors = open_checkpoint(folder).tensors
    return {
        name: (info.dtype, info.shape, read_stored(info).tobytes())
        for name, info in tensors.items()
    }


@pytest.fixture
def tiny(monkeypatch):
    """Matrices so small that packing them makes the file longer are packed all the same."""
    monkeypatch.setattr(packed, "OVERHEAD", 0)


@pytest.fixture
def folder(tmp_path, tiny):
    return folders.make(tmp_path / "sparse", values=sparse(folders.tensors()))


def test_all_values_come_back(folder):
    before = bits(folder)
    pack(folder)
    assert not (folder / SINGLE).exists()
    assert bits(folder) == before


def test_a_value_costs_its_bits_and_one(tmp_path):
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(512, 512)).astype(np.float32)
    matrix[draw.random(matrix.shape) < 0.9] = 0
    save_file({"a": matrix}, tmp_path / SINGLE)
    pack(tmp_path)
    living = np.count_nonzero(matrix)
    header = (tmp_path / packed_name(SINGLE)).stat().st_size - 4 * living - matrix.size // 8
    assert 0 < header < 400


def test_signs_of_zero_and_every_other_bit_survive(tmp_path):
    special = np.zeros((40, 5), np.float32)
    special.view(np.uint32)[0] = [0x80000000, 0x7FC00001, 0x7F800000, 1, 0]  # -0, NaN, inf, tiny
    save_file({"a": special}, tmp_path / SINGLE)
    pack(tmp_path)
    info = read_header(tmp_path / packed_name(SINGLE))["a"]
    assert (info.end - info.start) // 4 == 4
    assert read_array(info).tobytes() == special.tobytes()


@settings(max_examples=25, deadline=None)
@given(
    code=st.sampled_from(["I8", "F16", "BF16", "F32", "F64", "BOOL"]),
    shape=st.sampled_from([(1, 1), (3, 5), (8, 8), (2, 3, 7), (1000, 1100), (0, 4)]),
    share=st.sampled_from([0.0, 0.5, 0.97, 1.0]),
    seed=st.integers(0, 100),
)
def test_any_format_and_shape(code, shape, share, seed, tmp_path_factory):
    here = tmp_path_factory.mktemp("any")
    draw = np.random.default_rng(seed)
    stored = np.dtype(STORED_AS[code])
    values = (draw.integers(1, 2, shape) * (draw.random(shape) >= share)).astype(stored)
    header = {"a": entry(list(shape), 0, values.nbytes, code)}
    write_raw(here / SINGLE, header, values.tobytes())
    pack(here)
    file = here / packed_name(SINGLE)
    info = read_header(file if file.exists() else here / SINGLE)["a"]
    np.testing.assert_array_equal(read_stored(info), values)
    pieces = [np.empty(0, stored), *read_chunks(info)]
    assert sum(map(len, pieces)) == values.size
    assert max(map(len, pieces)) <= CHUNK
    assert info.nbytes == values.nbytes
    cost = np.count_nonzero(values) * stored.itemsize + -(-values.size // 8) + packed.OVERHEAD
    assert file.exists() == (cost < values.nbytes)
    assert not file.exists() or file.stat().st_size < values.nbytes + 100


def test_shards_stay_shards(tmp_path, tiny):
    folder = folders.make_sharded(tmp_path / "sharded")
    for file in folder.glob("model-*.safetensors"):
        held = {name: np.array(read_array(info)) for name, info in read_header(file).items()}
        save_file(sparse(held), file)
    before = bits(folder)
    pack(folder)
    assert sorted(file.name for file in folder.glob("model*")) == [
        "model-00001-of-00002.packed.safetensors",
        "model-00002-of-00002.packed.safetensors",
        packed_name(INDEX),
    ]
    assert bits(folder) == before
    with unpacked(folder) as plain:
        assert plain != folder
        assert (plain / INDEX).exists()
        assert bits(plain) == before
    assert not plain.exists()


def test_int8_is_packed_too(tmp_path, tiny):
    folder = folders.make_int8(tmp_path / "int8")
    values = {name: np.array(read_array(i)) for name, i in open_checkpoint(folder).tensors.items()}
    save_file(sparse(values), folder / SINGLE)
    before, facts = bits(folder), tensor_facts(open_checkpoint(folder))
    pack(folder)
    assert bits(folder) == before
    assert sorted(map(str, tensor_facts(open_checkpoint(folder)))) == sorted(map(str, facts))


def test_sizes_differ_on_disk_alone(folder):
    before = sizes(open_checkpoint(folder))
    pack(folder)
    after = sizes(open_checkpoint(folder))
    assert after.pop("disk") != before.pop("disk")
    assert after == before


def test_nothing_to_store_away_is_said(tmp_path, capsys):
    folder = folders.make(tmp_path / "dense")
    before = (folder / SINGLE).read_bytes()
    pack(folder)
    assert (folder / SINGLE).read_bytes() == before
    assert "--pack changes nothing" in capsys.readouterr().err
    with unpacked(folder) as plain:
        assert plain == folder


def test_transformers_refuses_what_it_cannot_read(folder):
    import transformers

    pack(folder)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder)


PARTS = {"a.bitmask": entry([1], 0, 1, "U8"), "a.values": entry([2], 1, 9)}
BROKEN = {
    "no-bitmask": ({"a.values": entry([2], 0, 8)}, SHAPES, "expected its .bitmask and its .values"),
    "no-values": ({"a.bitmask": entry([1], 0, 1, "U8")}, SHAPES, "expected its .bitmask"),
    "twice": ({**PARTS, "a": entry([1], 9, 10, "U8")}, SHAPES, "and nothing else"),
    "few-bits": (PARTS, '{"a": [3, 4]}', "shape [3, 4] needs 2 bytes of bits, found [1] of U8"),
    "huge": (PARTS, '{"a": [4611686018427387904, 8]}', "needs 4,611,686,018,427,387,904 bytes"),
    "shape": (PARTS, '{"a": [-2, 4]}', "is not a list of sizes"),
    "no-shape": (PARTS, '{"a": null}', "is not a list of sizes"),
    "not-json": (PARTS, "{", "not JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pack_is_named(name, tmp_path):
    entries, shapes, words = BROKEN[name]
    size = max(end["data_offsets"][1] for end in entries.values())
    header = {"__metadata__": {"packed_shapes": shapes}, **entries}
    file = write_raw(tmp_path / packed_name(SINGLE), header, b"\x03" + b"x" * (size - 1))
    with pytest.raises(InputError) as caught:
        read_header(file)
    assert words in caught.value.message


@pytest.mark.parametrize("octet", [0x01, 0x07])
def test_bits_that_contradict_the_values(octet, tmp_path):
    header = {"__metadata__": {"packed_shapes": SHAPES}, **PARTS}
    file = write_raw(tmp_path / "m", header, bytes([octet]) + b"x" * 8)
    with pytest.raises(InputError, match=r"has 2 values, and its bits say [13]"):
        read_array(read_header(file)["a"])


def test_not_a_number_is_found_behind_the_bits(folder):
    values = {name: np.array(read_array(i)) for name, i in open_checkpoint(folder).tensors.items()}
    values[QUERY].reshape(-1)[np.flatnonzero(values[QUERY])[0]] = np.nan
    save_file(values, folder / SINGLE)
    pack(folder)
    with pytest.raises(InputError, match="not finite"):
        open_checkpoint(folder)
    assert json.loads((folder / "config.json").read_text())


def test_no_room_to_unpack_is_said_before_anything_is_written(folder, monkeypatch):
    import shutil
    from types import SimpleNamespace

    pack(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(MachineError, match="not enough room") as caught, unpacked(folder):
        pass
    assert "TMPDIR" in caught.value.hint
