"""A checkpoint of any size, changed and written one tensor at a time.

What needs nothing but the values, zeros for small ones or layers left out, needs no model: memory
is that of the largest tensor that changes, whatever the size of the checkpoint. Everything else
is copied in pieces; shards keep their names, and numbers their format.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checkpoint import shards
from compressor.checkpoint.header import TensorInfo, header_bytes
from compressor.checkpoint.store import write_json

if TYPE_CHECKING:
    import torch

    from compressor.checkpoint.folder import Checkpoint


@dataclass(frozen=True)
class Rewriting:
    """What is to become of a checkpoint.

    Attributes:
        config: the new content of config.json.
        names: the new name of every tensor that stays, by its old one.
        change: gives the new values of a tensor from its old name and values, of the same shape
            and format; called once for each name in `changed`, in the order of the files.
        changed: old names of the tensors that change.
        facts: what there is to say about the result, asked when all is written.
    """

    config: dict[str, Any]
    names: Mapping[str, str]
    change: Callable[[str, torch.Tensor], torch.Tensor] | None = None
    changed: frozenset[str] = frozenset()
    facts: Callable[[], dict[str, Any]] = field(default=dict)


def read_tensor(info: TensorInfo) -> torch.Tensor:
    """The values of a tensor in their own format, as a copy that may be changed."""
    import numpy as np
    import torch

    from compressor.checkpoint.arrays import read_stored

    values = torch.from_numpy(np.array(read_stored(info)))
    return values.view(torch.bfloat16) if info.dtype == "BF16" else values


def rewrite(checkpoint: Checkpoint, to: Rewriting, folder: Path) -> None:
    """Write what `to` makes of a checkpoint into `folder`.

    Args:
        checkpoint: safetensors, in one file or several.
        to: what stays and what changes.
        folder: an empty folder.
    """
    files = shards.weight_files(checkpoint.path)
    written: dict[str, str] = {}
    total = 0
    for file in files:
        kept = [i for i in checkpoint.tensors.values() if i.file == file and i.name in to.names]
        if not kept:
            continue
        name = shards.plain_name(file.name)
        with (folder / name).open("wb") as stream:
            entries = {to.names[info.name]: (info.dtype, info.shape) for info in kept}
            stream.write(header_bytes(entries))
            for info in kept:
                for piece in _pieces(info, to):
                    stream.write(piece)
        written |= {to.names[info.name]: name for info in kept}
        total += sum(info.nbytes for info in kept)
    if set(written.values()) != {shards.SINGLE}:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(written.items()))}
        write_json(folder / shards.INDEX, index)
    for file in shards.inference_files(checkpoint.path):
        if file not in files and shards.plain_name(file.name) not in (shards.INDEX, "config.json"):
            shutil.copyfile(file, folder / file.name)
    write_json(folder / "config.json", to.config)


def _pieces(info: TensorInfo, to: Rewriting) -> Iterator[Any]:
    from compressor.checkpoint.arrays import stored_chunks

    if to.change is not None and info.name in to.changed:
        import torch

        changed = to.change(info.name, read_tensor(info)).contiguous()
        yield changed.view(torch.uint8).numpy().data
        return
    for piece in stored_chunks(info):
        yield piece.data
