"""Strict JSON and regular files only."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.checkpoint.reading import (
    file_names,
    nearest,
    open_regular,
    parse_object,
    read_object,
    shown,
    some,
    system_error,
)
from compressor.errors import InputError, MachineError


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}


def test_place_of_the_mistake_is_told(tmp_path):
    (tmp_path / "a.json").write_text('{\n "a": 1,\n "b" 2}')
    with pytest.raises(InputError, match="line 3, column 6") as caught:
        read_object(tmp_path / "a.json")
    assert caught.value.where == f"{tmp_path / 'a.json'}:3"


def test_a_long_file_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as handle:
        handle.truncate(10_000_001)
    with pytest.raises(InputError, match="longer than 10,000,000 bytes"):
        read_object(tmp_path / "a.json")


@pytest.mark.parametrize("text", ['{"a": Infinity}', '{"a": -NaN}', '{"a": 1}x', '"text"', "1"])
def test_what_is_not_an_object_is_refused(text, tmp_path):
    with pytest.raises(InputError):
        parse_object(text.encode(), tmp_path / "a.json")


def test_escaped_characters_are_kept(tmp_path):
    assert parse_object(b'{"\\u00e9": "\\ud83d\\ude00"}', tmp_path) == {"é": "😀"}


def test_many_keys_cost_no_quadratic_time(tmp_path):
    twice = ",".join(f'"{i}":0' for i in range(200_000)) + ',"199999":1'
    with pytest.raises(InputError, match="199999 stands there twice"):
        parse_object(f"{{{twice}}}".encode(), tmp_path / "a.json")


@settings(max_examples=100, deadline=1000)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(data):
    from pathlib import Path

    try:
        value = parse_object(data, Path("a.json"))
    except InputError as refusal:
        refusal.message.encode()
    else:
        assert isinstance(value, dict)
        json.dumps(value, ensure_ascii=False).encode()


def test_a_pipe_does_not_make_us_wait(tmp_path):
    os.mkfifo(tmp_path / "p")
    with pytest.raises(InputError, match="not a regular file"):
        open_regular(tmp_path / "p")


def test_names_of_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        file_names(tmp_path / "gone")


def test_system_errors_keep_their_exit_code(tmp_path):
    denied = system_error(PermissionError(13, "denied"), tmp_path / "gone")
    assert isinstance(denied, MachineError)
    assert f"{tmp_path}: owner" in denied.message
    assert isinstance(system_error(OSError(5, "I/O error"), tmp_path), MachineError)
    assert isinstance(system_error(OSError(36, "File name too long"), tmp_path), InputError)


def test_foreign_text_is_made_safe():
    assert shown("a\x1b[2J\n") == "a\\x1b[2J\\x0a"
    assert len(shown("x" * 1000)) == 80
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
    assert nearest("brt", ["bert", "gpt2"]) == "bert"
    assert nearest("zzzz", ["bert"]) is None
