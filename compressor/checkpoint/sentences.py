"""Sentence encoders: how the vectors of a text's tokens become one vector.

sentence-transformers keeps that in files beside a model without a head: `modules.json` lists what
runs in turn (Transformer, Pooling, perhaps Normalize), and the Pooling has a folder with its
config. Verbs that change such a model keep those files, and an export's script does what they say.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor import console
from compressor.checkpoint.config import architecture_in, size_in
from compressor.checkpoint.reading import file_names, open_regular, read_object, shown
from compressor.errors import InputError

MODULES, LENGTH = "modules.json", "sentence_bert_config.json"
PICTURES = "preprocessor_config.json"
_BESIDE = (MODULES, LENGTH, "config_sentence_transformers.json")
_MODES = ("mean", "cls", "max", "lasttoken")
# How configs of sentence-transformers before version 6 say it.
_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True)
class Pooling:
    """What happens to the vectors of a text's tokens.

    Attributes:
        mode: "mean" of all, the first ("cls") or the "lasttoken", or the "max" in each place.
        normalized: whether the result gets length 1.
        longest: the most tokens of a text that are read; None where only the model limits them.
        folder: name of the folder with the config, inside the checkpoint; empty without one.
    """

    mode: str = "mean"
    normalized: bool = True
    longest: int | None = None
    folder: str = ""


def read_pooling(folder: Path) -> Pooling | None:
    """What a checkpoint folder says about pooling; the mean, normalized, where it says nothing.

    Returns:
        None, and a warning, where it says something that is not known here.

    Raises:
        InputError: its files are broken, or point out of the folder.
    """
    names = file_names(folder)
    if MODULES not in names:
        return Pooling()
    modules = _modules(folder / MODULES)
    kinds = [kind for kind, _ in modules]
    where = dict(modules).get("Pooling", "")
    config = read_object(folder / where / "config.json") if where else {}
    modes = _modes(config)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        said = ", ".join(kinds)
    elif len(modes) != 1 or modes[0] not in _MODES:
        said = f"pooling by {' and '.join(modes) or 'nothing'}"
    else:
        config = read_object(folder / LENGTH) if LENGTH in names else {}
        longest = size_in(config, "max_seq_length", folder / LENGTH)
        return Pooling(modes[0], "Normalize" in kinds, longest, where)
    console.warn(
        f"{folder.name} makes one vector of a text by what is not known here ({shown(said)}); "
        "only the vectors of its tokens are kept"
    )
    return None


def _modules(where: Path) -> list[tuple[str, str]]:
    """(class, folder) of every module."""
    with open_regular(where) as handle:
        data = handle.read(100_000)
    try:
        found = [(str(entry["type"]), str(entry["path"])) for entry in json.loads(data)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{where.name} is not a list of modules with a type and a path", where=str(where)
        ) from None
    for _, path in found:
        if path.startswith(".") or any(letter in path for letter in "/\\\0"):
            raise InputError(
                f"{where.name} names the folder {shown(path)}: it must lie inside the checkpoint",
                where=str(where),
            )
    return [(kind.rpartition(".")[2], path) for kind, path in found]


def _modes(config: dict[str, Any]) -> list[str]:
    """The ways of pooling that a config of any version names."""
    given = config.get("pooling_mode")
    if given is None:
        return [name for flag, name in _FLAGS.items() if config.get(flag) is True]
    return [str(name) for name in (given if isinstance(given, list) else [given])]


def keep_beside(origin: Path, folder: Path) -> None:
    """Copy what belongs to the same model before a verb changed it, and still holds.

    That is how its pictures are made ready, and, without a head, how its vectors are pooled.

    Args:
        origin: the checkpoint that the verb read.
        folder: what it made of it, perhaps no model; whole but for these files.

    Raises:
        InputError: a file to keep is broken.
    """
    names = file_names(origin)
    kept = {PICTURES} & set(names)
    config = read_object(folder / "config.json") if (folder / "config.json").exists() else {}
    architecture = architecture_in(config) or ""
    bare = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
    pooling = read_pooling(origin) if bare and MODULES in names else None
    if pooling is not None:
        kept |= set(_BESIDE) & set(names)
        if pooling.folder:
            (folder / pooling.folder).mkdir()
            kept.add(f"{pooling.folder}/config.json")
    for name in sorted(kept):
        with open_regular(origin / name) as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)
