"""Reads files that somebody else wrote: regular files only, strict JSON, failures in words."""

from __future__ import annotations

import difflib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from compressor import console
from compressor.errors import CompressorError, InputError, MachineError

MAX_JSON_BYTES = 10_000_000
# transformers writes 10^30 as the length of a tokenizer without a limit.
_MAX_DIGITS = 100
_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_DEVICE = (errno.EIO, errno.ESTALE)
_WRONG_NAME = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_MAGIC = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "run: git lfs pull"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes it", "save the model as safetensors"),
    (b"\x80\x02", "a pickle, which can run code when it is read", "save the model as safetensors"),
    (b"GGUF", "a GGUF file", "convert it to safetensors first"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)


def system_error(problem: OSError, path: Path) -> CompressorError:
    """An operating system's refusal in words; a permission with the owner and mode it is about."""
    if isinstance(problem, PermissionError):
        return MachineError(
            f"no permission for {path} ({_owner_and_mode(path)})",
            hint=f"ask its owner, or: chmod u+rwX {path}",
            where=str(path),
        )
    kind = InputError if problem.errno in _WRONG_NAME else MachineError
    return kind(f"{shown(str(path))}: {problem.strerror or problem}", where=str(path))


def write_error(problem: BaseException, target: Path) -> CompressorError | None:
    """A full disk or a missing permission in our words; None for any other failure."""
    code = problem.errno if isinstance(problem, OSError) else None
    if type(problem).__name__ == "SafetensorError":  # keeps the number only in its text
        code = next((full for full in _FULL if f"os error {full})" in str(problem)), None)
    if code in _FULL:
        free = shutil.disk_usage(target.parent).free
        return MachineError(
            f"the disk is full: {target} could not be written, {console.size(free)} are free; "
            "what was begun is removed",
            hint="free some space or write elsewhere: -o",
            where=str(target),
        )
    if code in _DENIED + _DEVICE:
        kind = PermissionError if code in _DENIED else OSError
        return system_error(kind(code, os.strerror(code)), target)
    return None


def _owner_and_mode(path: Path) -> str:
    """`owner alice, mode 0600` of the path, or of the nearest parent that can be looked at."""
    for candidate in (path, *path.parents):
        try:
            found = candidate.stat()
        except OSError:
            continue
        name = "" if candidate == path else f"{candidate}: "
        return f"{name}owner {_user(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o}"
    return "owner and mode unknown"


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        InputError: there is none, or a folder, pipe or device has its name.
        MachineError: it may not be read.
    """
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        what = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise InputError(f"{path.name} {what}", where=str(path)) from None
    except OSError as problem:
        raise system_error(problem, path) from problem
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path.name} is not a regular file", where=str(path))
    return os.fdopen(descriptor, "rb")


def file_names(folder: Path) -> list[str]:
    """The names of everything directly in a folder, sorted.

    Raises:
        InputError: there is no such folder.
        MachineError: it may not be read.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise InputError(f"{folder} is not a folder", where=str(folder)) from problem
    except OSError as problem:
        raise system_error(problem, folder) from problem


def refuse_known_mistakes(head: bytes, path: Path) -> None:
    """Name a file that is plainly something else: a git-lfs pointer, a web page, an archive.

    Args:
        head: the first bytes of the file.
        path: the file.

    Raises:
        InputError: it is one of those, or empty.
    """
    if not head:
        raise InputError(
            f"{path.name} is empty (0 bytes)", hint="copy or fetch it again", where=str(path)
        )
    if head.lstrip()[:10].lower().startswith(_PAGE):
        raise InputError(
            f"{path.name} is a web page (HTML), not the file itself",
            hint="download the file, not the page about it",
            where=str(path),
        )
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            raise InputError(f"{path.name} is {what}", hint=hint, where=str(path))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold one object.

    Raises:
        InputError: the file is missing, too long, not UTF-8, not JSON, or holds something else.
        MachineError: it may not be read.
    """
    with open_regular(path) as handle:
        data = handle.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise InputError(
            f"{path.name} is longer than {MAX_JSON_BYTES:,} bytes; it cannot be a configuration",
            where=str(path),
        )
    refuse_known_mistakes(data[:200], path)
    return parse_object(data, path)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """Parse bytes as one JSON object: UTF-8, no key twice, no NaN, no lone surrogates.

    Args:
        data: the text.
        path: the file that it came from, for the message.

    Raises:
        InputError: with the line and column where reading stopped.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise InputError(
            f"{path.name} is not UTF-8 text: byte 0x{data[problem.start]:02x} in line {line}",
            hint="save it as UTF-8",
            where=f"{path}:{line}",
        ) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_short_int,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as problem:
        raise InputError(
            f"{path.name} is not JSON at line {problem.lineno}, column {problem.colno}: "
            + ("the file was cut off" if _is_cut_off(text, problem) else problem.msg),
            where=f"{path}:{problem.lineno}",
        ) from None
    except RecursionError:
        raise InputError(f"{path.name} nests its JSON too deeply", where=str(path)) from None
    except UnicodeEncodeError:
        raise InputError(f"{path.name} holds half of a character", where=str(path)) from None
    except ValueError as problem:
        raise InputError(f"{path.name} is refused: {problem}", where=str(path)) from None
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise InputError(
            f"{path.name} holds {kind}, expected an object: line 1, column 1 should be {{",
            where=f"{path}:1",
        )
    return value


def _is_cut_off(text: str, problem: json.JSONDecodeError) -> bool:
    return problem.msg.startswith("Unterminated") or not text[problem.pos :].strip()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {shown(name)} stands there twice")
        found[name] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def shown(text: str, width: int = 80) -> str:
    """A foreign text made safe for a terminal and cut to `width` characters."""
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: width + 1])
    return safe if len(safe) <= width else safe[: width - 3] + "..."


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few of many names, and how many there are."""
    every = list(names)
    text = ", ".join(shown(name) for name in every[:limit])
    return f"{text} and {len(every) - limit} more" if len(every) > limit else text


def nearest(name: str, choices: Sequence[str]) -> str | None:
    """The choice that is spelled most like `name`; None when none is like it."""
    found = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return found[0] if found else None
