"""Which files hold the weights of a folder, and the headers of all of them as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from compressor.checkpoint.header import TensorInfo, read_header
from compressor.checkpoint.reading import file_names, read_object, shown, some
from compressor.errors import InputError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_ENDING, _PACKED = ".safetensors", ".packed.safetensors"
ONNX = "model.onnx"
SCRIPT = "infer.py"  # what an export puts beside its graph
ONNX_DATA = ("model.onnx.data", "model.onnx_data")
TOKENIZERS = (
    "tokenizer.json", "vocab.txt", "spiece.model", "spm.model", "tokenizer.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
_VOCABULARY_PAIR = ("vocab.json", "merges.txt")
_CONFIGS = (
    "config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "preprocessor_config.json",
)  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_OTHERS = {".gguf": "GGUF", ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX"}


def packed_name(name: str) -> str:
    """What a file of weights or their index is called when it holds no zeros, see `packed.py`."""
    return name.replace(_ENDING, _PACKED)


def plain_name(name: str) -> str:
    """The name of a file of weights or their index, packed or not, when it is not packed."""
    return name.replace(_PACKED, _ENDING)


def _name_among(names: Sequence[str], plain: str) -> str | None:
    """The plain or packed name, whichever is there."""
    return next((name for name in (plain, packed_name(plain)) if name in names), None)


def refuse_incomplete(
    folder: Path, names: Sequence[str], own: frozenset[str] = frozenset()
) -> None:
    """Refuse a folder without config.json or weights, and one that brings code.

    Args:
        folder: a checkpoint folder.
        names: the names of the files in it.
        own: files that its record lists; an export's script among them is not run here.

    Raises:
        InputError: with what is there and what is missing.
    """
    exported = {SCRIPT} & own if is_onnx(names) else set()
    scripts = [name for name in names if name.endswith(".py") and name not in exported]
    if scripts:
        raise InputError(
            f"{folder} holds Python code ({some(scripts)}), which a checkpoint does not need and "
            "loading it could run",
            hint="if you trust the weights, remove the .py files",
            where=str(folder),
        )
    if "adapter_config.json" in names:
        raise InputError(
            f"{folder} holds an adapter (adapter_config.json), not a whole model",
            hint="merge it first: peft's merge_and_unload, then save_pretrained",
            where=str(folder),
        )
    weights = _name_among(names, SINGLE) or _name_among(names, INDEX) or ONNX in names
    missing = [] if "config.json" in names else ["config.json"]
    if not weights:
        _refuse_other_weights(folder, names)
        missing.append(f"weights ({SINGLE} or {ONNX})")
    if missing:
        _refuse_missing(folder, names, missing)


def refuse_without_tokenizer(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder of a text model that has no tokenizer.

    Raises:
        InputError: with the names that would do.
    """
    if not tokenizer_files(names):
        _refuse_missing(folder, names, [f"a tokenizer ({' or '.join(TOKENIZERS[:3])} ...)"])


def tokenizer_files(names: Sequence[str]) -> list[str]:
    """The files of the one form of the tokenizer that is loaded; [] where there is none."""
    for form in (*((name,) for name in TOKENIZERS), _VOCABULARY_PAIR):
        if all(name in names for name in form):
            return list(form)
    return []


def _refuse_missing(folder: Path, names: Sequence[str], missing: Sequence[str]) -> None:
    there = f"it holds {some(names, 12)}" if names else "it is empty"
    raise InputError(
        f"{folder} is not a whole checkpoint: {there}; missing: {', '.join(missing)}",
        hint="copy the whole folder that save_pretrained wrote",
        where=str(folder),
    )


def _refuse_other_weights(folder: Path, names: Sequence[str]) -> None:
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise InputError(
            f"{folder} holds its weights only as {some(pickles)}: pickle can run code when it is "
            "read, so it is not opened",
            hint="convert with AutoModel.from_pretrained(OLD).save_pretrained(NEW) on a machine "
            "you trust",
            where=str(folder),
        )
    for ending, what in _OTHERS.items():
        found = [name for name in names if name.endswith(ending)]
        if found:
            raise InputError(
                f"{folder} holds {what} weights ({some(found)}), expected {SINGLE} or {ONNX}",
                hint="rename it to model.onnx" if what == "ONNX" else "convert to safetensors",
                where=str(folder),
            )


def is_onnx(names: Sequence[str]) -> bool:
    """Whether a folder with these files is an ONNX folder."""
    return ONNX in names and not (_name_among(names, SINGLE) or _name_among(names, INDEX))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, sorted by name.

    Raises:
        InputError: the folder has none, or its index names a shard that is missing or outside.
    """
    names = file_names(folder)
    single, index = _name_among(names, SINGLE), _name_among(names, INDEX)
    if single:
        return [folder / single]
    if index:
        return [folder / name for name in sorted(set(read_index(folder / index).values()))]
    if ONNX in names:
        return [folder / name for name in sorted(names) if name in (ONNX, *ONNX_DATA)]
    raise InputError(f"{folder} holds no weights ({SINGLE} or {ONNX})", where=str(folder))


def read_index(where: Path) -> dict[str, str]:
    """Tensor name -> shard name of a sharded checkpoint.

    Args:
        where: the index.

    Raises:
        InputError: a shard is missing, or its name is not that of a file inside the folder.
    """
    shards = read_object(where).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InputError(f"{where.name} has no weight_map from tensor to shard", where=str(where))
    for shard in shards.values():
        inside = isinstance(shard, str) and not any(c in shard for c in "/\\\0")
        if not inside or not shard.endswith(".safetensors"):
            raise InputError(
                f"{where.name} names the shard {shown(str(shard))}: it must be a file name inside "
                "the folder, ending in .safetensors",
                where=str(where),
            )
    present = set(file_names(where.parent))
    missing = sorted(set(shards.values()) - present)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(set(shards.values()))} shards are missing: {some(missing)}",
            hint="fetch the missing files",
            where=str(where),
        )
    return shards


def read_tensors(folder: Path) -> dict[str, TensorInfo]:
    """The headers of all safetensors files of a folder as one.

    Raises:
        InputError: a file is broken, or index and shards disagree about who holds what.
    """
    names = file_names(folder)
    single, index = _name_among(names, SINGLE), _name_among(names, INDEX)
    if single:
        return read_header(folder / single)
    listed: dict[str, set[str]] = defaultdict(set)
    for name, shard in read_index(folder / (index or INDEX)).items():
        listed[shard].add(name)
    tensors: dict[str, TensorInfo] = {}
    for shard, names in sorted(listed.items()):
        held = read_header(folder / shard)
        lacks, unlisted = names - set(held), set(held) - names
        if lacks or unlisted:
            what = "lacks" if lacks else "holds, and the index does not know,"
            raise InputError(
                f"{shard} {what} {some(sorted(lacks or unlisted))} "
                f"({len(lacks or unlisted)} in all): index and shards are of different checkpoints",
                hint="fetch the checkpoint again",
                where=str(folder / shard),
            )
        tensors.update(held)
    return tensors


def inference_files(folder: Path) -> list[Path]:
    """The files that inference needs: weights, config, and one form of the tokenizer."""
    names = file_names(folder)
    needed = {file.name for file in weight_files(folder)} | {INDEX, packed_name(INDEX), *_CONFIGS}
    needed |= set(tokenizer_files(names))
    return [folder / name for name in names if name in needed]
