"""A list on disk that outlives the process that wrote it."""

import os

import pytest

from compressor.train.kept import KeptFile


def test_values_come_back_in_order_and_outlive_the_writer(tmp_path):
    path = tmp_path / "kept.jsonl"
    values = [[], {"a": ["é\n", 1]}, [[0, 4, ["film"]]]]
    with KeptFile(path) as kept:
        for value in values:
            kept.append(value)
        assert [kept[number] for number in range(3)] == values
    with KeptFile(path) as kept:
        assert len(kept) == 3
        assert kept[1] == values[1]
        kept.append("more")
        assert kept[3] == "more"
        for number in (-1, 4):
            with pytest.raises(IndexError):
                kept[number]


@pytest.mark.parametrize("rest", [b"", b"[1,", b"[1, 2]", b"\0\0\0"])
def test_a_line_without_its_end_is_dropped(rest, tmp_path):
    path = tmp_path / "kept.jsonl"
    path.write_bytes(b"[1]\n[2]\n" + rest)
    with KeptFile(path) as kept:
        assert len(kept) == 2
        kept.append([3])
    assert path.read_bytes() == b"[1]\n[2]\n[3]\n"


def test_a_value_that_could_not_be_forced_to_the_disk_is_not_there(tmp_path, monkeypatch):
    path = tmp_path / "kept.jsonl"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with KeptFile(path) as kept:
        kept.append([1])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                kept.append([2])
        assert len(kept) == 1
    assert path.read_bytes() == b"[1]\n"
