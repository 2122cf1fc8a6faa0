"""An exported folder, ready to run: ONNX Runtime with its chatter off and its errors in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.checkpoint.onnx_graph import open_graph
from compressor.errors import InputError, MachineError

if TYPE_CHECKING:
    import onnxruntime

GRAPH = "model.onnx"
FATAL = 4  # ONNX Runtime writes coloured lines to stderr below this; failures raise anyway
NUMPY_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class Session:
    """A graph with one output.

    Attributes:
        input_names: the arrays that `run` takes, in the graph's order.
        device: "cpu" or "cuda", where it really runs.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        import onnxruntime

        self._session = session
        self._types = {value.name: NUMPY_TYPES.get(value.type) for value in session.get_inputs()}
        self._output = session.get_outputs()[0].name
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = FATAL
        self.input_names = tuple(self._types)
        self.device = "cuda" if "CUDA" in session.get_providers()[0] else "cpu"

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The graph's output.

        Args:
            inputs: an array for each of `input_names`; others are ignored.

        Returns:
            float32 [rows, ...].

        Raises:
            InputError: an input is missing, or the graph cannot run on these shapes.
        """
        missing = [name for name in self.input_names if name not in inputs]
        if missing:
            raise InputError(
                f"the graph takes {', '.join(self.input_names)}; missing: {', '.join(missing)}"
            )
        arrays = {name: np.asarray(inputs[name], dtype=kind) for name, kind in self._types.items()}
        try:
            (output,) = self._session.run([self._output], arrays, self._options)
        except Exception as problem:
            if not _from_onnxruntime(problem):
                raise
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise InputError(f"the graph cannot run on {shapes}: {_first_line(problem)}") from None
        return output.astype(np.float32, copy=False)


def open_session(folder: Path, *, threads: int, cuda: bool = False) -> Session:
    """Load `folder`/model.onnx.

    Args:
        folder: an exported folder.
        threads: how many threads one call may use.
        cuda: run on the GPU.

    Raises:
        InputError: no graph there, or one that ONNX Runtime cannot read.
        MachineError: `cuda` without a build of ONNX Runtime that has it.
    """
    import onnxruntime

    path = folder / GRAPH
    if not path.is_file():
        found = ", ".join(sorted(os.listdir(folder))[:8]) if folder.is_dir() else "no such folder"
        raise InputError(f"no {GRAPH} here; found: {found or 'nothing'}", where=str(folder))
    open_graph(folder)  # refuses external data outside the folder before anything reads it
    if cuda and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise MachineError(
            "this ONNX Runtime has no CUDA support",
            hint="pip install onnxruntime-gpu, or leave --device at cpu",
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next call in a loop would slow down whatever else is measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CUDAExecutionProvider"] if cuda else []
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as problem:
        if not _from_onnxruntime(problem):
            raise
        raise InputError(
            f"ONNX Runtime cannot load {GRAPH}: {_first_line(problem)}",
            where=str(path),
            hint="export it again",
        ) from None
    return Session(session)


def _from_onnxruntime(problem: Exception) -> bool:
    """ONNX Runtime's errors share no base class, only the module that they come from."""
    return "onnxruntime" in type(problem).__module__


def _first_line(problem: Exception) -> str:
    return str(problem).strip().splitlines()[0][:300]
