"""A block of a Markdown file is replaced, and nothing else is touched."""

from __future__ import annotations

import os
import resource

import pytest

from compressor.checkpoint.blocks import Block
from compressor.checkpoint.store import locked
from compressor.errors import InputError, MachineError

OPEN, CLOSE = "<!-- compressor compare x -->", "<!-- /compressor compare x -->"

OTHER = "<!-- compressor compare y -->\ny\n<!-- /compressor compare y -->"


@pytest.fixture
def block(tmp_path):
    return Block(tmp_path / "R.md", "compressor compare x")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{OPEN}\n{CLOSE}", f"{OPEN}\nnew\n{CLOSE}"),
        (f"a\n{OPEN}\nold\n\nold\n{CLOSE}\nb", f"a\n{OPEN}\nnew\n{CLOSE}\nb"),
        (f"\ufeffa\r\n{OPEN}\r\nold\r\n{CLOSE}\r\n", f"\ufeffa\r\n{OPEN}\r\nnew\r\n{CLOSE}\r\n"),
        (
            f"> {OPEN}\n  {OPEN} \t\n{CLOSE}\nb\x0b\x85",
            f"> {OPEN}\n  {OPEN} \t\nnew\n{CLOSE}\nb\x0b\x85",
        ),
        (f"{OTHER}\n{OPEN}\n{CLOSE}\n{OTHER}\n", f"{OTHER}\n{OPEN}\nnew\n{CLOSE}\n{OTHER}\n"),
    ],
)
def test_only_what_stands_between_the_lines_changes(before, after, block, tmp_path):
    block.path.write_bytes(b"\xff\n" + before.encode())  # whatever it is encoded in
    block.path.chmod(0o640)
    block.check()
    assert block.path.read_bytes() == b"\xff\n" + before.encode()
    for _ in range(2):
        block.write("new\n")
        assert block.path.read_bytes() == b"\xff\n" + after.encode()
    assert block.path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["R.md"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", f"{OPEN} once, and has it nowhere"),
        (f"text {OPEN}\n{CLOSE}\n", f"{OPEN} once, and has it nowhere"),
        (f"{OPEN}\nold\n", f"{CLOSE} once, and has it nowhere"),
        (f"{CLOSE}\n", f"{OPEN} once, and has it nowhere"),
        (f"{OPEN}\n{CLOSE}\n{OPEN}\n{CLOSE}\n", f"{OPEN} once, and has it in lines 1, 3"),
        (f"{OPEN}\n{CLOSE}\n{CLOSE}\n", f"{CLOSE} once, and has it in lines 2, 3"),
        (f"{CLOSE}\n{OPEN}\n", "ends the block compressor compare x before it begins"),
    ],
)
def test_a_block_that_is_not_there_once_is_refused(text, said, block, tmp_path):
    block.path.write_text(text)
    for call in (block.check, lambda: block.write("new\n")):
        with pytest.raises(InputError) as caught:
            call()
        assert said in caught.value.message
        assert "R.md" in caught.value.message
        assert caught.value.hint
    assert block.path.read_text() == text
    assert names(tmp_path) == ["R.md"]


def test_no_file_and_a_folder_are_refused(block, tmp_path):
    with pytest.raises(InputError, match=r"R.md does not exist"):
        block.check()
    block.path.mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        block.check()


def test_a_link_stays_a_link(block, tmp_path):
    (tmp_path / "docs").mkdir()
    real = tmp_path / "docs" / "real.md"
    real.write_text(f"{OPEN}\n{CLOSE}\n")
    block.path.symlink_to(real)
    block.write("new\n")
    assert block.path.is_symlink()
    assert real.read_text() == f"{OPEN}\nnew\n{CLOSE}\n"


def test_a_file_that_another_run_writes_is_refused(block):
    block.path.write_text(f"{OPEN}\n{CLOSE}\n")
    with locked(block.path), pytest.raises(InputError, match="being written by another run"):
        block.write("new\n")


def test_a_full_disk_leaves_the_old_file(block, tmp_path):
    before = "x" * 3000 + f"\n{OPEN}\nold\n{CLOSE}\n"
    block.path.write_text(before)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, usual[1]))
    try:
        with pytest.raises(MachineError, match="disk is full"):
            block.write("new\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert block.path.read_text() == before
    assert names(tmp_path) == ["R.md"]


def test_what_a_killed_run_left_is_removed(block, tmp_path):
    block.path.write_text(f"{OPEN}\n{CLOSE}\n")
    gone = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(gone, 0)
    (tmp_path / f".R.md.partial-{gone}").write_text("half")
    block.write("new\n")
    assert names(tmp_path) == ["R.md"]


def test_the_new_bytes_are_on_disk_before_they_have_the_name(block, monkeypatch):
    order = []
    sync, rename = os.fsync, type(block.path).rename
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("sync"), sync(number)))
    monkeypatch.setattr(
        type(block.path), "rename", lambda path, to: (order.append("rename"), rename(path, to))
    )
    block.path.write_text(f"{OPEN}\n{CLOSE}\n")
    block.write("new\n")
    assert order == ["sync", "rename", "sync"]
