"""The few graphs that may be the fastest, built, checked and measured in turns on this machine.

How a processor likes attention as one node or in parts, and residual sums apart from the norms that
follow or fused with them, differs between processors, shapes and versions of ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from compressor import console
from compressor.errors import CompressorError
from compressor.export.session import Session, open_session
from compressor.measure.latency import Timer, measure_in_turns, timed

PARTS = {"opset": 22}  # the last without a node for attention
VARIANTS: dict[str, dict[str, Any]] = {
    "attention as one node, sums apart": {},
    "attention as one node, sums fused": {"plain_sums": False},
    "attention in parts, sums apart": PARTS,
    "attention in parts, sums fused": {**PARTS, "plain_sums": False},
}


def tuned_folder(
    folder: Path,
    batch: int,
    length: int,
    export: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """Export every variant, and leave the fastest in `folder`.

    Args:
        folder: exists.
        batch: rows of a call.
        length: tokens of each.
        export: writes a variant into the folder that it is given, see `export_folder`.

    Returns:
        what the kept export found; `kept`, the variant; `tuning_ms`, the median of each.

    Raises:
        CompressorError: the first variant cannot be exported.
    """
    facts: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory(dir=folder, prefix=".tune-") as scratch:
        places = {name: Path(scratch, str(n)) for n, name in enumerate(VARIANTS)}
        for name, options in VARIANTS.items():
            places[name].mkdir()
            try:
                facts[name] = export(places[name], **options)
            except CompressorError as problem:
                if not facts:
                    raise
                console.note(f"{name}: left out, {problem.message}")
        threads = torch.get_num_threads()
        sessions = {name: open_session(places[name], threads=threads) for name in facts}
        candidates = {
            name: lambda rows, tokens, session=session: _timer(session, rows, tokens)
            for name, session in sessions.items()
        }
        rows = measure_in_turns(candidates, [(batch, length)])
        times = {name: found[0]["p50_ms"] for name, found in rows.items()}
        kept = min(times, key=times.__getitem__)
        for name, time in times.items():
            mark = " (kept)" if name == kept else ""
            console.note(f"  {time:8.3f} ms at {batch}x{length}  {name}{mark}")
        sessions.clear()
        for file in places[kept].iterdir():
            os.replace(file, folder / file.name)
    return {**facts[kept], "kept": kept, "tuning_ms": times}


def _timer(session: Session, batch: int, length: int) -> Timer:
    ones = np.ones((batch, length), dtype=np.int64)
    inputs = dict.fromkeys(session.input_names, ones)
    inputs["token_type_ids"] = np.zeros_like(ones)
    return timed(lambda: session.run(inputs))
