"""An exported folder, ready to run: ONNX Runtime with its chatter off and its errors in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.checkpoint.onnx_graph import open_graph
from compressor.errors import InputError, MachineError

if TYPE_CHECKING:
    import onnxruntime

GRAPH = "model.onnx"
PAST, POSITIONS = "past_key_values", "position_ids"
FATAL = 4  # ONNX Runtime writes coloured lines to stderr below this; failures raise anyway
NUMPY_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class Session:
    """A graph whose first output is the model's.

    Attributes:
        input_names: the arrays that `run` must be given, in the graph's order.
        cached: names of the keys and values that a decoder goes on from, which may be left out.
        device: "cpu" or "cuda", where it really runs.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        import onnxruntime

        self._session = session
        taken = {value.name: value for value in session.get_inputs()}
        self._types = {name: NUMPY_TYPES.get(value.type) for name, value in taken.items()}
        self._outputs = [value.name for value in session.get_outputs()]
        self.cached = tuple(name for name in taken if name.startswith(PAST))
        self._cache_shapes = {name: taken[name].shape for name in self.cached}
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = FATAL
        own = {*self.cached, POSITIONS} if self.cached else set()
        self.input_names = tuple(name for name in self._types if name not in own)
        self.device = "cuda" if "CUDA" in session.get_providers()[0] else "cpu"

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The graph's first output, float32 [rows, ...]; see `step`."""
        return self._run(inputs, self._outputs[:1])[0]

    def step(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The first output, and what the next call of a decoder takes as its past."""
        first, *kept = self._run(inputs, self._outputs)
        return first, dict(zip(self.cached, kept, strict=True))

    def _run(self, inputs: Mapping[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        """The named outputs.

        Args:
            inputs: an array for each of `input_names`; others are ignored. Without a past a
                decoder begins anew, and without positions they are counted by the mask.
            outputs: names.

        Raises:
            InputError: an input is missing, or the graph cannot run on these shapes.
        """
        missing = [name for name in self.input_names if name not in inputs]
        if missing:
            raise InputError(
                f"the graph takes {', '.join(self.input_names)}; missing: {', '.join(missing)}"
            )
        inputs = {**self._begun(inputs), **inputs} if self.cached else inputs
        arrays = {name: np.asarray(inputs[name], dtype=kind) for name, kind in self._types.items()}
        try:
            found = self._session.run(outputs, arrays, self._options)
        except Exception as problem:
            if not _from_onnxruntime(problem):
                raise
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise InputError(f"the graph cannot run on {shapes}: {_first_line(problem)}") from None
        return [found[0].astype(np.float32, copy=False), *found[1:]]

    def _begun(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """An empty past, and positions by the mask."""
        rows, length = inputs["input_ids"].shape
        made = {
            name: np.zeros((rows, shape[1], 0, shape[3]), dtype=np.float32)
            for name, shape in self._cache_shapes.items()
        }
        mask = np.asarray(inputs["attention_mask"], dtype=np.int64)
        return {**made, POSITIONS: (mask.cumsum(-1) - 1).clip(min=0)[:, -length:]}


def forward_of(session: Session) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A graph as a function from the arrays of rows to its output, see `Session.run`.

    A graph of texts always takes the token types that a tokenizer may leave out.
    """

    def forward(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        ids = arrays.get("input_ids")
        types = {} if ids is None else {"token_type_ids": np.zeros_like(ids)}
        return session.run({**types, **arrays})

    return forward


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
