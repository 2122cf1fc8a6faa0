"""The only way to put a folder on disk: written beside its place, forced to disk, renamed once.

A folder that has its final name is whole. Whatever a killed run leaves behind begins with a dot
and is removed, and named, by the next run for the same target.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor import console
from compressor.checkpoint.reading import system_error, write_error
from compressor.errors import InputError, MachineError

OURS = ("compression.json", "report.json", "generation.json", "compare.json", "domains.json")


def check_target(
    target: Path, *, force: bool, inputs: Sequence[Path] = (), needed_bytes: int = 0
) -> None:
    """Refuse, before any work, an output that cannot or must not be written.

    Args:
        target: the folder to be written.
        force: whether a folder of ours may be replaced.
        inputs: folders that the run reads, which must stay as they are.
        needed_bytes: what the run will write at most, all at once.

    Raises:
        InputError: the target exists, is or touches an input, or has no parent folder.
        MachineError: the parent folder cannot be written, or the disk is too full.
    """
    if target.name in ("", ".."):
        raise _refused(target, "has no name of its own", "name the folder to make")
    place = Path(os.path.realpath(target))
    for source in inputs:
        read = Path(os.path.realpath(source))
        if place == read:
            raise _refused(target, f"is the input {source} of this run", "give it another name: -o")
        if read in place.parents or place in read.parents:
            where = "lies inside" if read in place.parents else "holds"
            raise _refused(target, f"{where} the input {source}", "write it elsewhere: -o")
    if target.is_symlink():
        raise _refused(target, "is a symbolic link", "name the folder itself")
    _refuse_existing(target, force=force)
    _refuse_orphan(target)
    parent = target.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        raise system_error(PermissionError(), parent)
    refuse_full(parent, needed_bytes, "write elsewhere: -o", where=target)


def refuse_full(folder: Path, needed_bytes: int, elsewhere: str, *, where: Path) -> None:
    """Refuse to begin what would not fit.

    Args:
        folder: the place to write in.
        needed_bytes: what will be written at most, all at once.
        elsewhere: what to type to write in another place.
        where: what is to be written, or read for it.

    Raises:
        MachineError: with what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise MachineError(
            f"not enough room in {folder.resolve()}: {console.size(needed_bytes)} needed, "
            f"{console.size(free)} free",
            hint=f"free some space or {elsewhere}",
            where=str(where),
        )


def _refused(target: Path, why: str, hint: str) -> InputError:
    return InputError(f"the output {target} {why}", hint=hint, where=str(target))


def _refuse_orphan(target: Path) -> None:
    parent = target.parent
    if not parent.is_dir():
        raise _refused(target, f"cannot be made: there is no folder {parent}", f"mkdir -p {parent}")


def _refuse_existing(target: Path, *, force: bool) -> None:
    if not os.path.lexists(target):
        return
    if not force:
        raise _refused(target, "already exists", "choose another with -o, or replace it: --force")
    ours = target.is_dir() and any((target / name).is_file() for name in OURS)
    if not ours and not (target.is_dir() and not any(target.iterdir())):
        raise _refused(
            target,
            f"exists and was not written by compressor (it has no {' or '.join(OURS)}), so "
            "--force does not replace it",
            "remove it yourself, or choose another with -o",
        )


@contextmanager
def locked(target: Path, wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the target for this process and clear what killed runs left of it.

    Args:
        target: the folder to be written.
        wait: called again and again while another run holds it; None refuses at once.

    Raises:
        InputError: another run is writing it.
        MachineError: the lock file cannot be made.
    """
    path = target.parent / f".{target.name}.lock"
    descriptor = _acquire(path, target, wait)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
        clear_leftovers(target)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, target: Path, wait: Callable[[], None] | None) -> int:
    """An open, locked lock file. The kernel lets go of it when its process dies."""
    while True:
        _refuse_orphan(target)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as problem:
            raise system_error(problem, path) from problem
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").split()
            os.close(descriptor)
            if wait is not None:
                wait()
                continue
            pid, host = holder if len(holder) == 2 else ("unknown", "unknown")
            raise _refused(
                target,
                f"is being written by another run (process {pid} on {host})",
                "wait for it, or write elsewhere: -o",
            ) from None
        # Its last holder may have deleted the file between our two calls.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)


def clear_leftovers(target: Path) -> None:
    """Remove, and name, what killed runs left beside `target`; the caller holds the target."""
    for old in _dead(target, "old"):
        if target.exists():
            shutil.rmtree(old)
        else:  # killed between the two renames of --force
            old.rename(target)
            console.note(f"put {target} back, which a killed run had moved aside")
    for partial in _dead(target, "partial"):
        console.note(f"removing {partial}, which a killed run left unfinished")
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def _dead(target: Path, kind: str) -> list[Path]:
    """Whatever is called `.{name}.{kind}-{pid}` and whose process is gone."""
    prefix = f".{target.name}.{kind}-"
    found = []
    for name in os.listdir(target.parent):
        pid = name.removeprefix(prefix)
        if name.startswith(prefix) and pid.isdecimal() and not _runs(int(pid)):
            found.append(target.parent / name)
    return sorted(found)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def writing(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes otherwise.

    Args:
        target: the final folder; its parent must exist.
        force: replace a folder of ours that has the name.

    Yields:
        The folder to write into, beside the target.

    Raises:
        InputError: the target exists and may not be replaced.
        MachineError: the disk is full, or a permission is missing.
    """
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        _refuse_orphan(target)
        _refuse_existing(target, force=force)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        _settle(partial)
        _refuse_existing(target, force=force)
        _rename(partial, target)
    except BaseException as problem:
        shutil.rmtree(partial, ignore_errors=True)
        refusal = write_error(problem, target)
        if refusal:
            raise refusal from problem
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Give an existing file other bytes, all at once; its mode stays, and the caller holds it.

    Raises:
        MachineError: the disk is full, or a permission is missing; the old bytes stay.
    """
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    try:
        partial.write_bytes(data)
        partial.chmod(path.stat().st_mode & 0o7777)
        _sync(partial)
        partial.rename(path)
        _sync(path.parent)
    except BaseException as problem:
        partial.unlink(missing_ok=True)
        refusal = write_error(problem, path)
        if refusal:
            raise refusal from problem
        raise


def _settle(folder: Path) -> None:
    """Give everything the umask's modes and force it to disk, files before their folders."""
    umask = os.umask(0)
    os.umask(umask)
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            file = Path(path, name)
            if not file.is_symlink():
                file.chmod(0o666 & ~umask)
                _sync(file)
        Path(path).chmod(0o777 & ~umask)
        _sync(Path(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(partial: Path, target: Path) -> None:
    old = target.parent / f".{target.name}.old-{os.getpid()}"
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise
    _sync(target.parent)
    if replaces:
        shutil.rmtree(old)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON: keys in their order, two spaces, UTF-8; NaN is an error of ours."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8")
