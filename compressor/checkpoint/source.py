"""Turns what a user typed as MODEL into a folder: a path, `hub:owner/name` or `pkg:module/sub`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from compressor import console
from compressor.checkpoint.reading import file_names, nearest, shown, system_error
from compressor.errors import InputError, MachineError

# What a checkpoint consists of; pickles, other frameworks' weights and subfolders stay away, all
# but the settings in `1_Pooling`.
HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
HUB_NOT = ("[!1]*/*", "*/*.[!j]*", "*.onnx.json")


def resolve_model(model: str) -> Path:
    """The folder that `model` means.

    Args:
        model: a folder, `hub:owner/name[@revision]`, or `pkg:module/subfolder` for weights that an
            installed Python package carries.

    Raises:
        InputError: there is no such folder, repository or subfolder.
        MachineError: the package is not installed, or the hub cannot be reached.
    """
    if not model.strip() or "\0" in model:
        raise InputError(f"{shown(model)!r} is not the name of a folder")
    if model.startswith("hub:"):
        return _from_hub(model.removeprefix("hub:"))
    if model.startswith("pkg:"):
        return _from_package(model.removeprefix("pkg:"))
    return existing_folder(Path(model))


def existing_folder(path: Path) -> Path:
    """`path` itself, if it is a folder.

    Raises:
        InputError: it is a file, or does not exist; the nearest name that does exist is told.
        MachineError: a folder on the way may not be looked into.
    """
    try:
        if path.is_dir():
            return path
        exists = path.exists()
        parent, missing = path.parent, path.name
        while not parent.exists():
            parent, missing = parent.parent, parent.name
    except OSError as problem:
        raise system_error(problem, path) from problem
    if exists:
        raise InputError(
            f"{path} is a file; expected a checkpoint folder",
            hint=f"name the folder that holds it: {path.parent}",
            where=str(path),
        )
    similar = nearest(missing, file_names(parent))
    like = f"; nearest name there: {parent / similar}" if similar else ""
    name = str(path) if len(path.parts) <= 2 and not path.is_absolute() else "NAME"
    raise InputError(
        f"{path} does not exist: {parent} holds no {missing}{like}",
        hint=f"to fetch from the hub write hub:{name}",
        where=str(path),
    )


def _from_package(name: str) -> Path:
    """The folder inside an installed package; nothing of the package is imported."""
    module, _, inside = name.partition("/")
    top, *rest = module.split(".")
    if not top.isidentifier():
        raise InputError(f"pkg:{shown(name)}: expected pkg:module/subfolder")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise MachineError(
            f"pkg:{shown(name)}: no package {shown(top)} is installed",
            hint=f"pip install {shown(top).replace('_', '-')}",
        )
    roots = [Path(root).resolve() for root in spec.submodule_search_locations or ()]
    for root in roots:
        folder = root.joinpath(*rest, inside).resolve()
        if not folder.is_relative_to(root):
            raise InputError(f"pkg:{shown(name)} points out of the package {top}")
        if folder.is_dir():
            return folder
    held = [entry for root in roots for entry in file_names(root) if (root / entry).is_dir()]
    raise InputError(
        f"the package {top} holds no folder {shown(inside)}; its folders: {', '.join(held)}",
        hint=f"pkg:{top}/{nearest(inside, held) or 'FOLDER'}",
    )


def _from_hub(name: str) -> Path:
    """The local copy of a hub repository, fetched when it is not there yet."""
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    repository, _, revision = name.partition("@")
    disable_progress_bars()
    console.note(f"fetching {shown(name)} from the hub")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(HUB_FILES),
            ignore_patterns=list(HUB_NOT),
        )
    except (
        errors.HFValidationError,
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
    ) as problem:
        raise InputError(
            f"hub:{shown(name)}: {str(problem).strip().splitlines()[0]}",
            hint="write hub:owner/name or hub:owner/name@revision; private ones need HF_TOKEN",
        ) from problem
    except (OSError, errors.OfflineModeIsEnabled) as problem:
        raise MachineError(
            f"hub:{shown(name)} is not in the local cache and the hub cannot be reached: "
            f"{str(problem).strip().splitlines()[0]}",
            hint="check the network and HF_HUB_OFFLINE, or copy the folder here and name it",
        ) from problem
    return Path(folder)
