"""A folder with its final name is whole; whatever goes wrong, nothing else stays behind."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compressor.checkpoint import store
from compressor.checkpoint.store import check_target, locked, write_json, writing
from compressor.errors import GateError, InputError, MachineError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ours(folder: Path) -> Path:
    folder.mkdir()
    (folder / "compression.json").write_text("{}")
    return folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_folder_appears_whole_with_the_umasks_modes(tmp_path):
    target = tmp_path / "out"
    before = os.umask(0o027)
    try:
        with writing(target) as folder:
            assert folder.parent == tmp_path
            (folder / "inner").mkdir()
            for name in ("a", "inner/b"):
                (folder / name).write_text("x")
                (folder / name).chmod(0o600)
            assert not target.exists()
    finally:
        os.umask(before)
    assert names(tmp_path) == ["out"]
    assert [mode(target / name) for name in ("a", "inner/b")] == [0o640, 0o640]
    assert [mode(target), mode(target / "inner")] == [0o750, 0o750]


def test_files_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    real = {"fsync": os.fsync, "rename": Path.rename}
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (order.append(os.readlink(f"/proc/self/fd/{fd}")), real["fsync"](fd)),
    )
    monkeypatch.setattr(
        Path, "rename", lambda path, to: (order.append("rename"), real["rename"](path, to))[1]
    )
    with writing(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert order == [str(folder / "a"), str(folder), "rename", str(tmp_path)]


@pytest.mark.parametrize("failure", [GateError("no"), KeyboardInterrupt(), ValueError("bug")])
def test_a_failure_leaves_nothing_and_stays_itself(failure, tmp_path):
    def fail():
        with writing(tmp_path / "out") as folder:
            (folder / "a").write_text("x")
            raise failure

    with pytest.raises(type(failure)) as caught:
        fail()
    assert caught.value is failure
    assert names(tmp_path) == []


class SafetensorError(Exception):
    """As the library raises it: the number stands only in the text."""


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_the_machines_fault(failure, tmp_path):
    with (
        pytest.raises(MachineError, match=r"disk is full.* free") as caught,
        writing(tmp_path / "o"),
    ):
        raise failure
    assert caught.value.exit_code == 6
    assert names(tmp_path) == []


def test_a_missing_permission_is_the_machines_fault(tmp_path):
    with pytest.raises(MachineError, match=r"no permission.*owner"), writing(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(FileNotFoundError), writing(tmp_path / "out"):
        raise FileNotFoundError(errno.ENOENT, "a bug of ours")


def test_a_real_full_disk(tmp_path):
    """RLIMIT_FSIZE stands in for a full disk, as the library meets it too."""
    code = (
        "import numpy as np, signal, sys; from pathlib import Path;"
        "from safetensors.numpy import save_file;"
        "from compressor.checkpoint.store import writing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        f"  with writing(Path({str(tmp_path / 'out')!r})) as folder:\n"
        "    save_file({'a': np.zeros(100_000)}, folder / 'model.safetensors')\n"
        "except Exception as problem: print(type(problem).__name__, problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.stdout.startswith("MachineError the disk is full"), done
    assert names(tmp_path) == []


def test_force_replaces_ours_and_only_ours(tmp_path):
    target = ours(tmp_path / "out")
    with pytest.raises(InputError, match="already exists") as caught, writing(target):
        pass
    assert "--force" in caught.value.hint
    with writing(target, force=True) as folder:
        (folder / "report.json").write_text("new")
        assert (target / "compression.json").exists()
    assert names(target) == ["report.json"]
    assert names(tmp_path) == ["out"]
    (target / "report.json").rename(target / "thesis.tex")
    foreign = pytest.raises(InputError, match="was not written by compressor")
    with foreign, writing(target, force=True):
        pass
    assert names(target) == ["thesis.tex"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_named(tmp_path, monkeypatch):
    target = ours(tmp_path / "out")
    real = Path.rename

    def rename(path, to):
        if ".partial-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(MachineError, match="Input/output error"), writing(target, force=True):
        pass
    assert names(tmp_path) == ["out"]
    assert names(target) == ["compression.json"]


def test_a_target_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(InputError, match="already exists"), writing(target):
        target.mkdir()
    assert names(tmp_path) == ["out"]
    assert names(target) == []


def test_check_target_passes_what_can_be_written(tmp_path):
    check_target(tmp_path / "out", force=False, inputs=[tmp_path / "in"], needed_bytes=1)
    check_target(ours(tmp_path / "out"), force=True)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", force=True)
    assert names(tmp_path) == ["empty", "out"]


def test_check_target_protects_inputs(tmp_path):
    source = ours(tmp_path / "in")
    (tmp_path / "link").symlink_to(source)
    for target, words in (
        (source, "is the input"),
        (tmp_path / "x" / ".." / "in", "is the input"),
        (tmp_path / "link", "is the input"),
        (source / "out", "lies inside the input"),
        (tmp_path, "holds the input"),
    ):
        with pytest.raises(InputError, match=words):
            check_target(target, force=True, inputs=[source])
    with pytest.raises(InputError, match="symbolic link"):
        check_target(tmp_path / "link", force=True)


def test_check_target_refuses_in_words(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for target, force, words in (
        (ours(tmp_path / "out"), False, "already exists"),
        (tmp_path / "file", True, "was not written by compressor"),
        (tmp_path / "no" / "out", False, "no folder .*no"),
        (tmp_path / "file" / "out", False, "no folder .*file"),
        (Path("."), True, "no name of its own"),
        (tmp_path / "..", True, "no name of its own"),
    ):
        with pytest.raises(InputError, match=words):
            check_target(target, force=force)
    with pytest.raises(MachineError, match=r"not enough room.*1000000.00 GB needed, .* free"):
        check_target(tmp_path / "new", force=False, needed_bytes=10**15)
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(MachineError, match=r"no permission for .*owner .*mode"):
        check_target(tmp_path / "new", force=False)


LOCK = (
    "import sys, time; from pathlib import Path; from compressor.checkpoint.store import *\n"
    "with locked(Path(sys.argv[1])):\n"
    "  with writing(Path(sys.argv[1]), force=True) as folder:\n"
    "    (folder / 'compression.json').write_text('{}')\n"
    "    print('in', flush=True)\n"
    "    time.sleep(60)"
)


def start_writer(target: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "in\n"
    return child


def test_the_second_run_for_one_target_is_refused_and_a_killed_one_is_cleared(tmp_path, capsys):
    target = ours(tmp_path / "out")
    child = start_writer(target)
    try:
        taken = pytest.raises(InputError, match=f"another run .process {child.pid} on ")
        with taken, locked(target):
            pass
        with locked(tmp_path / "other"):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert names(tmp_path) == [".out.lock", f".out.partial-{child.pid}", "out"]
    with locked(target):
        assert f".out.partial-{child.pid}, which a killed run left" in capsys.readouterr().err
        assert names(tmp_path) == [".out.lock", "out"]
    assert names(tmp_path) == ["out"]


def test_what_a_killed_force_moved_aside_comes_back(tmp_path, capsys):
    target = tmp_path / "out"
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours(tmp_path / f".out.old-{dead.pid}")
    with locked(target):
        assert names(target) == ["compression.json"]
    assert "put" in capsys.readouterr().err
    ours(tmp_path / f".out.old-{dead.pid}")
    with locked(target):
        pass
    assert names(tmp_path) == ["out"]


def test_a_living_process_keeps_its_unfinished_folder(tmp_path):
    (tmp_path / f".out.partial-{os.getppid()}").mkdir()
    (tmp_path / ".out.partial-x").mkdir()
    with locked(tmp_path / "out"):
        assert (tmp_path / f".out.partial-{os.getppid()}").exists()
        assert (tmp_path / ".out.partial-x").exists()


def test_the_lock_needs_a_folder(tmp_path):
    for use in (locked, writing):
        with pytest.raises(InputError, match="no folder"), use(tmp_path / "no" / "out"):
            pass


KILLED = (
    "import sys; from pathlib import Path; from compressor.checkpoint.store import *\n"
    "while True:\n"
    "  print('go', flush=True)\n"
    "  with writing(Path(sys.argv[1]), force=True) as folder:\n"
    "    for name in ('compression.json', *'abcdefgh'):\n"
    "      (folder / name).write_text('x' * 4000)\n"
)


def test_sigkill_at_any_moment_leaves_a_whole_folder_or_none(tmp_path):
    draw = random.Random(0)
    target = tmp_path / "out"
    seen = set()
    for round_ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE
        )
        for _ in range(1 + round_ % 3):
            child.stdout.readline()
        time.sleep(draw.uniform(0, 0.02))
        child.kill()
        child.wait()
        seen |= {name.split("-")[0] for name in names(tmp_path)}
        with locked(target):
            pass
        assert names(tmp_path) in ([], ["out"])
        if target.exists():
            assert names(target) == sorted([*"abcdefgh", "compression.json"])
            assert {path.stat().st_size for path in target.iterdir()} == {4000}
    assert {"out", ".out.partial"} <= seen  # kills came both during and after writing


def test_json_keeps_order_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": ["é"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "b": 1,\n  "a": [\n    "é"\n  ]\n}\n'
    assert list(json.loads(text)) == ["b", "a"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    ours = ("compression", "report", "generation", "compare", "domains")
    assert tuple(f"{name}.json" for name in ours) == store.OURS
