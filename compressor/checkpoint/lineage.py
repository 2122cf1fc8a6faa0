"""compression.json: how a checkpoint came to be, and the hashes that prove it is still that one.

A folder of generated rows has the same record under the name generation.json.

The record holds no clock, host or absolute path, so the same command gives the same bytes. Times
and paths stand in run.json, which no hash covers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from compressor import __version__
from compressor.checkpoint.reading import file_names, open_regular, read_object, shown
from compressor.checkpoint.shards import weight_files
from compressor.checkpoint.store import write_json
from compressor.errors import CompressorError, InputError

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint

SCHEMA = 1
RECORD = "compression.json"
GENERATION = "generation.json"
RUN = "run.json"
_PACKAGES = (
    "accelerate", "compressed-tensors", "numpy", "onnx", "onnxruntime", "safetensors", "tokenizers",
    "torch", "transformers",
)  # fmt: skip
_FIRST_VERBS = ("finetune", "pretrain")
_BLOCK = 1 << 20
_SETTLED_NS = 50_000_000  # a younger file may change again without a new time stamp
_hashes: dict[tuple[int, ...], str] = {}


def file_hash(path: Path) -> str:
    """Hash of a file, read at most once per process while it stays the same: "sha256:<hex>".

    Raises:
        InputError: there is no such file.
        MachineError: it may not be read.
    """
    with open_regular(path) as handle:
        found = os.fstat(handle.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if key in _hashes:
            return _hashes[key]
        digest = hashlib.sha256()
        while block := handle.read(_BLOCK):
            digest.update(block)
    value = f"sha256:{digest.hexdigest()}"
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS:
        _hashes[key] = value
    return value


def weights_hash(folder: Path) -> str:
    """Hash of the weights: of the one file, or of the list of all files' hashes: "sha256:<hex>".

    Raises:
        InputError: the folder holds no weights.
    """
    return _combined({file.name: file_hash(file) for file in weight_files(folder)})


def _combined(by_name: Mapping[str, str]) -> str:
    if len(by_name) == 1:
        return next(iter(by_name.values()))
    lines = "".join(f"{name} {value}\n" for name, value in sorted(by_name.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def make_step(
    verb: str,
    method: str,
    options: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, Any],
    command: str,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One step of a lineage, with the versions of the libraries that matter filled in.

    Args:
        verb: what was done.
        method: by which method; empty where the verb has none.
        options: the method's and the verb's options; no paths.
        seed: of the run.
        inputs: {"model": {"name", "weights"}, "teacher": ..., "data": ...}; no paths.
        command: the command line that does it again.
        metrics: what was measured; finite numbers.
    """
    step = {
        "verb": verb,
        "method": method,
        "options": dict(options),
        "seed": seed,
        "versions": {"compressor": __version__, **_versions()},
        "inputs": dict(inputs),
        "metrics": dict(metrics or {}),
        "command": command,
    }
    # What is compared with a record read from disk must have JSON's types: lists, not tuples.
    return json.loads(json.dumps(step, allow_nan=False))


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # `onnx` and its like are not needed by every step
            continue
    return found


def write_lineage(
    folder: Path, steps: Sequence[Mapping[str, Any]], record_name: str = RECORD
) -> None:
    """Write the record over everything that is in `folder` now.

    Args:
        folder: the finished folder; only run.json may be added to it later.
        steps: the lineage, oldest first.
        record_name: RECORD for a checkpoint, GENERATION for rows.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in (record_name, RUN):
            files[name] = {"size": file.stat().st_size, "sha256": file_hash(file)[7:]}
    record = {"schema": SCHEMA, "compressor": __version__, "steps": list(steps), "files": files}
    write_json(folder / record_name, record)


def _read_record(folder: Path, record_name: str = RECORD) -> dict[str, Any]:
    """The record with its types checked; {} where there is none."""
    where = folder / record_name
    if record_name not in file_names(folder):
        return {}
    record = read_object(where)
    schema = record.get("schema")
    if type(schema) is not int or schema > SCHEMA or schema < 1:
        maker = shown(str(record.get("compressor", "unknown")))
        raise InputError(
            f"{record_name} has schema {shown(str(schema))}, written by compressor {maker}; this "
            f"is compressor {__version__}, which reads schema {SCHEMA}",
            hint="pip install --upgrade compressor",
            where=str(where),
        )
    steps, files = record.get("steps"), record.get("files")
    steps_whole = isinstance(steps, list) and all(isinstance(step, dict) for step in steps)
    if not steps_whole or not isinstance(files, dict) or not all(map(_is_entry, files.items())):
        raise InputError(
            f"{record_name} is damaged: expected steps (a list of objects) and files (name -> size "
            "and sha256, names inside the folder)",
            hint="make the checkpoint again, or remove the file to open the weights without it",
            where=str(where),
        )
    return record


def _is_entry(item: tuple[str, Any]) -> bool:
    name, entry = item
    path = PurePosixPath(name)
    inside = "\0" not in name and not path.is_absolute() and ".." not in path.parts
    return inside and isinstance(entry, dict) and isinstance(entry.get("sha256"), str)


def read_lineage(folder: Path, record_name: str = RECORD) -> list[dict[str, Any]]:
    """The steps that made a folder, oldest first; [] for another tool's folder.

    Raises:
        InputError: the record is newer than this program, or damaged.
    """
    return _read_record(folder, record_name).get("steps", [])


def recorded_files(folder: Path) -> frozenset[str]:
    """Names of the files that compression.json lists; none for another tool's folder.

    Raises:
        InputError: the record is newer than this program, or damaged.
    """
    return frozenset(_read_record(folder).get("files", {}))


def changed_files(folder: Path) -> list[tuple[str, str, str]]:
    """Files that differ from what compression.json recorded: (name, expected, found).

    Hashes read "sha256:<hex>"; a file that is gone is found as "nothing".

    Raises:
        InputError: compression.json is newer than this program, or damaged.
    """
    changed = []
    for name, entry in _read_record(folder).get("files", {}).items():
        expected = f"sha256:{entry['sha256']}"
        found = file_hash(folder / name) if os.path.exists(folder / name) else "nothing"
        if found != expected:
            changed.append((name, expected, found))
    return changed


def find_by_hash(weights: str, near: Sequence[Path]) -> Path | None:
    """The folder whose weights have this hash, looked for around folders that may know it.

    Args:
        weights: "sha256:<hex>" as `weights_hash` gives it.
        near: folders to start from: they themselves, what their run.json names as inputs (and
            theirs in turn), then everything beside them.
    """
    for folder in folders_around(near):
        try:
            recorded = _recorded_hash(folder)
            if recorded in (None, weights) and weights_hash(folder) == weights:
                return folder
        except CompressorError:
            continue  # some folder nearby that is no checkpoint, or a broken one: not this one
    return None


def _recorded_hash(folder: Path) -> str | None:
    """The weights' hash by the record, not verified: it only saves reading the others."""
    files = _read_record(folder).get("files")
    if not files:
        return None
    names = [file.name for file in weight_files(folder)]
    return _combined({name: f"sha256:{files.get(name, {}).get('sha256')}" for name in names})


def folders_around(near: Sequence[Path]) -> Iterator[Path]:
    """Candidate folders, each once, the likely ones first."""
    seen: set[Path] = set()
    left = [folder.resolve() for folder in near]
    parents = list(dict.fromkeys(folder.parent for folder in left))
    while left:
        folder = left.pop(0)
        if folder not in seen and folder.is_dir():
            seen.add(folder)
            yield folder
            left.extend(_inputs_of(folder))
    for parent in parents:
        for name in file_names(parent):
            folder = parent / name
            hidden = name.startswith(".")  # another run's unfinished work
            if not hidden and folder.resolve() not in seen and (folder / "config.json").is_file():
                yield folder


def _inputs_of(folder: Path) -> list[Path]:
    """The folders that run.json names; run.json is a note, so a broken one names none."""
    if not (folder / RUN).is_file():
        return []
    try:
        inputs = read_object(folder / RUN).get("inputs")
    except CompressorError:
        return []
    values = inputs.values() if isinstance(inputs, dict) else ()
    return [Path(value) for value in values if isinstance(value, str) and "\0" not in value]


def baseline_of(checkpoint: Checkpoint) -> tuple[str, Path | None] | None:
    """The (weights hash, folder) that a checkpoint's results are to be compared with.

    It is what the first step wrote, if that step trained; otherwise what the first step read.
    The folder is None when it cannot be found any more; the whole is None without a lineage.
    """
    steps = checkpoint.steps
    if not steps:
        return None
    position = 1 if steps[0].get("verb") in _FIRST_VERBS else 0
    if position == len(steps):
        return checkpoint.weights_hash, checkpoint.path
    weights = _input_hash(steps[position])
    return (weights, find_by_hash(weights, [checkpoint.path])) if weights else None


def _input_hash(step: Mapping[str, Any]) -> str | None:
    """The weights hash of the checkpoint whose lineage a step continues."""
    inputs = step.get("inputs")
    # distil continues its teacher; any other verb its model, even when a teacher helps.
    roles = ("teacher", "model") if step.get("verb") == "distill" else ("model", "teacher")
    for role in roles:
        entry = inputs.get(role) if isinstance(inputs, dict) else None
        if isinstance(entry, dict) and isinstance(entry.get("weights"), str):
            return entry["weights"]
    return None
