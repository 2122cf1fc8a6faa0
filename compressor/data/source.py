"""Where the data is: what a user types after `--data`, turned into files by split.

`DATA` is a folder with train|validation|test files, one file, `pkg:module/subfolder` (a folder
that an installed Python package carries), `hub:name[/config]`, or `-` (JSON lines on stdin).
"""

from __future__ import annotations

import atexit
import hashlib
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TextIO

from compressor.data.domains import EVERY, Domains
from compressor.data.readers import FORMATS, open_binary
from compressor.errors import InputError, MachineError, UsageError

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# `train.jsonl`, and `train-00000-of-00002.parquet` as the hub writes large splits.
SPLIT_FILE = re.compile(r"([a-z]+)(-\d+-of-\d+)?", re.IGNORECASE)
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*){0,2}")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """The files of a data set.

    Args:
        name: how reports and the lineage call it; never an absolute path.
        splits: the files of each split that there is, in order: train, validation, test.
        hub: the `name[/config]` that was fetched, None for local files.
        is_parts: whether it is a folder of data folders, all of whose files stand together.
        domains: which of the files' rows are used.
    """

    name: str
    splits: dict[str, list[Path]]
    hub: str | None = None
    is_parts: bool = False
    domains: Domains = EVERY


def open_source(data: str, *, single: str = "train", parts: bool = False) -> Source:
    """Find the files behind `data`; reads none of them.

    Args:
        data: as typed: a folder, a file, `pkg:...`, `hub:...` or `-`.
        single: the split that one file stands for, unless its own name says which it is.
        parts: whether a folder of data folders will do.

    Raises:
        InputError: nothing is there, or nothing that can be read.
        UsageError: `-` while stdin is a terminal.
        MachineError: the hub cannot be reached, or stdin does not fit on the disk.
    """
    if data == "-":
        return Source("-", {single: [_spooled(sys.stdin)]})
    if data.startswith("hub:"):
        from compressor.data.hub import fetch

        name = data.removeprefix("hub:")
        return Source(data, fetch(name), hub=name)
    if data.startswith("pkg:"):
        return _of_folder(_package_folder(data), data, parts=parts)
    path = Path(data)
    if path.is_dir():
        return _of_folder(path, path.resolve().name, parts=parts)
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise InputError(
                f"cannot read a {path.suffix or 'nameless'} file",
                hint=f"convert it to one of {', '.join(FORMATS)}",
                where=data,
            )
        return Source(path.name, {_split_of(path) or single: [path]})
    raise _missing(path, data)


def source_hash(source: Source) -> str:
    """`sha256:<hex>` over what the files hold and which split each belongs to.

    File and folder names have no part in it: the same rows elsewhere are the same data. Of files
    that are used in part, the choice of domains has.
    """
    digest = hashlib.sha256()
    if source.domains.chosen:
        digest.update(f"{source.domains}\n".encode())
    for split, files in source.splits.items():
        for file in files:
            digest.update(f"{split}{file.suffix.lower()}:{file.stat().st_size}\n".encode())
            with open_binary(file) as handle:
                while chunk := handle.read(CHUNK_BYTES):
                    digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _split_of(path: Path) -> str | None:
    match = SPLIT_FILE.fullmatch(path.stem)
    return SPLIT_NAMES.get(match[1].lower()) if match else None


def _of_folder(folder: Path, name: str, *, parts: bool) -> Source:
    below = _data_folders(folder)
    if not parts or not below or any(map(_is_split_file, folder.iterdir())):
        return Source(name, _folder_splits(folder))
    each = [_folder_splits(part) for part in below]
    found = {split: [file for part in each for file in part.get(split, ())] for split in SPLITS}
    splits = {split: files for split, files in found.items() if files}
    return Source(name, splits, is_parts=True)


def _data_folders(folder: Path) -> list[Path]:
    below = (path for path in sorted(folder.iterdir()) if path.is_dir())
    return [path for path in below if any(map(_is_split_file, path.iterdir()))]


def _folder_splits(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        split = _split_of(path)
        if split and path.suffix.lower() in FORMATS and path.is_file():
            found.setdefault(split, []).append(path)
    if not found:
        raise _no_splits(folder)
    for split, files in found.items():
        # Shards of one split differ in their number only; anything else would mix two data sets.
        if len(files) > 1 and not _are_shards(files):
            raise InputError(
                f"{split} stands in {len(files)} files: {', '.join(f.name for f in files)}",
                hint="keep one of them in the folder, or name the file itself",
                where=str(folder),
            )
    return {split: found[split] for split in SPLITS if split in found}


def _are_shards(files: list[Path]) -> bool:
    kinds = {re.sub(r"-\d+-of-", "-of-", file.name) for file in files}
    return len(kinds) == 1 and "-of-" in files[0].name


def _no_splits(folder: Path) -> InputError:
    inside = sorted(folder.iterdir())
    below = _data_folders(folder)
    names = ", ".join(p.name for p in inside[:10]) or "nothing"
    more = f" and {len(inside) - 10} more" if len(inside) > 10 else ""
    return InputError(
        f"no train, validation or test file in the folder; it holds {names}{more}",
        hint=f"{below[0]} is one with such files"
        if below
        else f"name the files train, validation, test with one of {', '.join(FORMATS)}",
        where=str(folder),
    )


def _is_split_file(path: Path) -> bool:
    return path.suffix.lower() in FORMATS and _split_of(path) is not None


def _missing(path: Path, data: str) -> InputError:
    import difflib

    parent = path.parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    suggestion = f"; did you mean {parent / near[0]}?" if near else ""
    hint = f"a folder, or a file of {', '.join(FORMATS)}"
    if HUB_NAME.fullmatch(data):
        hint += f"; to fetch from the hub write hub:{data}"
    return InputError(f"no such folder or file{suggestion}", hint=hint, where=data)


def _package_folder(data: str) -> Path:
    import importlib.util

    module, _, below = data.removeprefix("pkg:").partition("/")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None:
        raise InputError(
            f"no Python package {module!r} is installed here",
            hint="pkg:module/subfolder names a folder inside an installed package",
            where=data,
        )
    for root in found.submodule_search_locations or ():
        folder = Path(root, below)
        if folder.is_dir():
            return folder
    raise InputError(
        f"the package {module!r} has no folder {below!r}",
        hint="pkg:module/subfolder names a folder inside an installed package",
        where=data,
    )


@cache
def _spooled(stdin: TextIO | None) -> Path:
    """A temporary file with what stdin holds, because rows are read more than once."""
    import shutil
    import tempfile

    if stdin is None or stdin.isatty():
        raise UsageError(
            "expected JSON lines on standard input, which is a terminal",
            hint="pipe the rows in, or name a file",
            where="--data -",
        )
    with tempfile.NamedTemporaryFile(prefix="compressor-", suffix=".jsonl", delete=False) as spool:
        path = Path(spool.name)
        atexit.register(path.unlink, missing_ok=True)
        try:
            shutil.copyfileobj(stdin.buffer, spool, CHUNK_BYTES)
        except OSError as problem:
            raise MachineError(
                f"standard input could not be kept: {problem.strerror}",
                hint="set TMPDIR to a disk with more room",
                where=str(path.parent),
            ) from problem
    if not path.stat().st_size:
        raise InputError(
            "no rows on standard input",
            hint="the stage before this one wrote nothing",
            where="--data -",
        )
    return path
