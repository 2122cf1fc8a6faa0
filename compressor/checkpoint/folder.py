"""Opens a checkpoint folder, or says in one sentence why not; torch is never needed for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor import __version__, console
from compressor.checkpoint import shards
from compressor.checkpoint.config import (
    architecture_in,
    labels_in,
    model_type_of,
    quantization_in,
    read_config,
    size_in,
)
from compressor.checkpoint.families import FAMILIES, base_family, reads_text, split_layer
from compressor.checkpoint.header import TensorInfo
from compressor.checkpoint.lineage import (
    changed_files,
    find_by_hash,
    read_lineage,
    recorded_files,
    weights_hash,
)
from compressor.checkpoint.reading import (
    file_names,
    open_regular,
    refuse_known_mistakes,
    some,
)
from compressor.checkpoint.source import existing_folder
from compressor.checkpoint.structure import check_structure
from compressor.checkpoint.values import refuse_not_finite
from compressor.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was opened and found whole.

    Attributes:
        path: the folder.
        config: the content of config.json.
        tensors: every stored tensor by name; empty for an ONNX folder.
        steps: the lineage, oldest step first; empty for another tool's folder.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    steps: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The folder's name; for a copy in the hub's cache, the repository's."""
        folder = self.path.resolve()
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.parent.parent.name.rpartition("--")[2]
        return folder.name

    @property
    def runtime(self) -> str:
        """What runs it: "torch" or "onnxruntime"."""
        return "torch" if self.tensors else "onnxruntime"

    @property
    def model_type(self) -> str:
        """The config's model type, such as "bert"; "unknown" where an ONNX folder has none."""
        return str(self.config.get("model_type") or "unknown")

    @property
    def family(self) -> str:
        """The model type, or that before pruning for a model whose layers differ."""
        return base_family(self.model_type)

    @property
    def reads_images(self) -> bool:
        """Whether the model reads images, and so has no tokenizer."""
        return not reads_text(self.model_type)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of their ids; None when the config names none."""
        return labels_in(self.config, self.path / "config.json")

    @property
    def layers(self) -> int:
        """Depth by the config, or by the tensors where the config leaves it open."""
        family = FAMILIES.get(self.family)
        key = family.layers if family else "num_hidden_layers"
        places = (split_layer(name) for name in self.tensors)
        stored = max((place[1] + 1 for place in places if place), default=0)
        return size_in(self.config, key, self.path / "config.json") or stored

    @property
    def architecture(self) -> str | None:
        """The first architecture that the config names, such as "BertForMaskedLM"."""
        return architecture_in(self.config)

    @property
    def quantization(self) -> dict[str, Any] | None:
        """The config's quantization_config; None for floats and for ONNX folders."""
        return self.config.get("quantization_config") if self.tensors else None

    @property
    def weights_hash(self) -> str:
        """Hash of the weight files, as "sha256:<hex>"."""
        return weights_hash(self.path)

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files that inference needs: weights, config, tokenizer."""
        return sum(file.stat().st_size for file in shards.inference_files(self.path))


def open_checkpoint(
    path: Path, *, accept_changed: bool = False, scan_values: bool = True
) -> Checkpoint:
    """Open a checkpoint folder of ours or of another tool, or an ONNX folder.

    Args:
        path: the folder.
        accept_changed: open it although files differ from what its lineage recorded.
        scan_values: look at every value for NaN and infinity (90 MB take 0.1 s).

    Raises:
        InputError: it is missing, incomplete, broken, unsafe or contradicts itself.
        MachineError: it may not be read.
    """
    folder = existing_folder(path)
    names = file_names(folder)
    shards.refuse_incomplete(folder, names, recorded_files(folder))
    config = read_config(folder, names)
    steps = read_lineage(folder)
    tensors: dict[str, TensorInfo] = {}
    if shards.is_onnx(names):
        from compressor.checkpoint.onnx_graph import check_graph

        check_graph(folder, scan_values=scan_values)
    else:
        model_type_of(config, folder / "config.json")
        tensors = shards.read_tensors(folder)
        if not tensors:
            raise InputError("the weights hold no tensors", where=str(folder))
    _check_tokenizer(config, folder, names)
    _check_unchanged(folder, accept=accept_changed)
    labels_in(config, folder / "config.json")
    if tensors:
        quantization_in(config, folder / "config.json")
        check_structure(config, tensors, folder)
        if scan_values:
            refuse_not_finite(tensors, folder)
    _warn_of_newer(steps, folder)
    return Checkpoint(folder, config, tensors, steps)


def _check_tokenizer(config: dict[str, Any], folder: Path, names: list[str]) -> None:
    if not reads_text(str(config.get("model_type"))):
        return
    shards.refuse_without_tokenizer(folder, names)
    for name in shards.tokenizer_files(names):
        with open_regular(folder / name) as handle:
            refuse_known_mistakes(handle.read(200), folder / name)


def _check_unchanged(folder: Path, *, accept: bool) -> None:
    changed = changed_files(folder)
    if not changed:
        return
    name, expected, found = changed[0]
    more = some((name for name, _, _ in changed[1:]), 5)
    text = (
        f"{name} was changed after {folder.name} was written: its record says {expected}, found "
        f"{found}" + (f"; also changed: {more}" if more else "")
    )
    if not accept:
        raise InputError(
            text,
            hint="make the checkpoint again, or add --accept-changed if the change was meant",
            where=str(folder / name),
        )
    console.warn(text)


def _warn_of_newer(steps: list[dict[str, Any]], folder: Path) -> None:
    versions = steps[-1].get("versions") if steps else None
    made_by = versions.get("compressor") if isinstance(versions, dict) else None
    if isinstance(made_by, str) and _numbers(made_by) > _numbers(__version__):
        console.warn(
            f"{folder.name} was made by compressor {made_by}; this is {__version__}, which may "
            "not know its method"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal() and len(part) < 10]


def refuse_quantized(checkpoint: Checkpoint, verb: str) -> None:
    """Refuse to train, prune, distil or quantize what is already integers or a graph.

    Args:
        checkpoint: the input of the verb.
        verb: for the message.

    Raises:
        InputError: with the folder to start from, when the lineage knows it.
    """
    if checkpoint.runtime == "torch" and checkpoint.quantization is None:
        return
    kind = "a quantized checkpoint" if checkpoint.runtime == "torch" else "an ONNX folder"
    inputs = checkpoint.steps[-1].get("inputs") if checkpoint.steps else None
    parent = inputs.get("model") if isinstance(inputs, dict) else None
    start = "the float checkpoint that it was made from"
    if isinstance(parent, dict) and isinstance(parent.get("weights"), str):
        found = find_by_hash(parent["weights"], [checkpoint.path])
        start = f"{found or parent.get('name')} (its parent in the lineage)"
    raise InputError(
        f"{checkpoint.name} is {kind}, and {verb} needs floating-point weights: quantize is the "
        "last step before export",
        hint=f"start from {start}",
        where=str(checkpoint.path),
    )
