"""A checkpoint or ONNX folder as something to be measured: its answers, and ready calls."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.checkpoint.facts import compressed_bytes, sizes, tensor_facts, weight_bits
from compressor.checkpoint.layers import layer_rows
from compressor.model.devices import choose_device
from compressor.model.reader import Reader, image_shape, images_of
from compressor.model.tasks import task_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from compressor.checkpoint.folder import Checkpoint
    from compressor.data.dataset import Dataset
    from compressor.data.rows import Row
    from compressor.measure.isolated import Calls
    from compressor.measure.latency import Call
    from compressor.model.load import Loaded
    from compressor.train.evaluate import Evaluation, Forward

MOST_LAYERS = 64  # rows of a model in a report; of a deeper one neighbours share a row


@dataclass(frozen=True)
class Candidate:
    """One model under measurement.

    Attributes:
        name: how the report calls it.
        checkpoint: the opened folder.
        forward: arrays to logits.
        tokenizer: its tokenizer, None for images.
        vocabulary: ids that a latency call draws from.
        longest: most tokens that it takes.
        device: where it runs.
        precision: number format that PyTorch computes in.
    """

    name: str
    checkpoint: Checkpoint
    forward: Forward
    tokenizer: PreTrainedTokenizerBase | None
    vocabulary: int
    longest: int
    device: str
    precision: str = "fp32"

    @property
    def reader(self) -> Reader:
        """What turns rows into its inputs."""
        return Reader(self.tokenizer, images_of(self.checkpoint), self.longest)

    def facts(self) -> dict[str, Any]:
        """What the report says about the model besides measurements."""
        quantized = self.checkpoint.quantization is not None
        known = tensor_facts(self.checkpoint)
        facts: dict[str, Any] = {
            "name": self.name,
            "path": str(self.checkpoint.path),
            "runtime": self.checkpoint.runtime,
            "device": self.device,
            "size": {
                **sizes(self.checkpoint, known),
                "zstd": compressed_bytes(self.checkpoint),
            },
            "layers": layer_rows(known, MOST_LAYERS),
            "steps": self.checkpoint.steps,
        }
        if quantized and self.checkpoint.runtime == "torch":
            # PyTorch turns the integers back into floats: right numbers, no gain in speed.
            bits = (*weight_bits(self.checkpoint), 8)[0]
            facts["precision"] = f"int{bits} (simulated)"
        elif self.checkpoint.runtime == "torch" and self.precision != "fp32":
            facts["precision"] = self.precision
        return facts


def open_candidate(
    checkpoint: Checkpoint, name: str, threads: int, device: str, precision: str
) -> Candidate:
    """Load a folder to score it.

    Args:
        checkpoint: the opened folder, PyTorch or ONNX.
        name: how the report calls it.
        threads: threads that its runtime may use.
        device: "cpu" or "cuda".
        precision: number format that PyTorch computes in.
    """
    if checkpoint.runtime == "onnxruntime":
        return Candidate(name, checkpoint, *_open_graph(checkpoint, threads, device))
    opened = _open_model(checkpoint, threads, device, precision)
    return Candidate(name, checkpoint, *opened, precision)


def open_calls(
    checkpoint: Checkpoint, threads: int, device: str, vocabulary: int, precision: str
) -> Calls:
    """Load a folder to time it: a function from (batch, length) to a ready call on made-up inputs.

    No tokenizer is read and no call is made, so that opening and the first call mean the same of
    every runtime; a graph is opened without PyTorch and transformers.

    Args:
        checkpoint: the opened folder, PyTorch or ONNX.
        threads: threads that its runtime may use.
        device: "cpu" or "cuda".
        vocabulary: ids are drawn below it.
        precision: number format that PyTorch computes in.
    """
    if checkpoint.runtime == "onnxruntime":
        from compressor.export.session import open_session

        session = open_session(checkpoint.path, threads=threads, cuda=device == "cuda")
        forward, names = session.run, session.input_names
    else:
        forward, _ = _open_module(checkpoint, threads, device, precision, tokenizer=False)
        names = ("input_ids", "attention_mask", "pixel_values")

    def prepare(batch: int, length: int) -> Call:
        arrays = made_up(checkpoint, vocabulary, batch, length)
        return partial(forward, {name: arrays[name] for name in names if name in arrays})

    return prepare


def made_up(
    checkpoint: Checkpoint, vocabulary: int, batch: int, length: int
) -> dict[str, np.ndarray]:
    """Random inputs: int64 ids [batch, length], or float32 [batch, channels, height, width]."""
    draw = np.random.default_rng(0)
    if checkpoint.reads_images:
        pixels = draw.standard_normal((batch, *image_shape(checkpoint)), dtype=np.float32)
        return {"pixel_values": pixels}
    return {
        "input_ids": draw.integers(0, vocabulary, (batch, length)),
        "attention_mask": np.ones((batch, length), dtype=np.int64),
        "token_type_ids": np.zeros((batch, length), dtype=np.int64),
    }


Opened = tuple["Forward", "PreTrainedTokenizerBase | None", int, int, str]


def _open_model(checkpoint: Checkpoint, threads: int, device: str, precision: str) -> Opened:
    from compressor.model.load import longest_input

    forward, loaded = _open_module(checkpoint, threads, device, precision, tokenizer=True)
    vocabulary = getattr(loaded.model.config.get_text_config(), "vocab_size", 0)
    where = loaded.model.device.type
    return forward, loaded.tokenizer, vocabulary, longest_input(loaded), where


def _open_module(
    checkpoint: Checkpoint, threads: int, device: str, precision: str, *, tokenizer: bool
) -> tuple[Forward, Loaded]:
    import torch

    from compressor.model.inputs import fed
    from compressor.model.load import load, silenced

    where = choose_device(device)
    torch.set_num_threads(threads)
    loaded = load(checkpoint, task_of(checkpoint), tokenizer=tokenizer)
    config = loaded.model.config
    # A decoder that classifies asks for one; made-up inputs have no padding, so any will do.
    if not tokenizer and getattr(config.get_text_config(), "pad_token_id", None) is None:
        config.pad_token_id = 0
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    # Integers that unpack into floats do so in the format that the checkpoint was made from.
    model = loaded.model.to(where, None if checkpoint.quantization else kind)
    key = "logits" if task_of(checkpoint) else "last_hidden_state"
    quietly = silenced if checkpoint.quantization else nullcontext  # unpacking draws a bar

    def forward(arrays: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode(), quietly():
            inputs = fed(model, arrays)
            inputs = {n: torch.from_numpy(array).to(where) for n, array in inputs.items()}
            inputs = {
                n: x.to(model.dtype) if x.is_floating_point() else x for n, x in inputs.items()
            }
            # Copying the result to the host waits for a GPU to finish.
            return model(**inputs)[key].float().cpu().numpy()

    return forward, loaded


def _open_graph(checkpoint: Checkpoint, threads: int, device: str) -> Opened:
    import transformers

    from compressor.export.session import forward_of, open_session
    from compressor.model.load import quiet_libraries

    quiet_libraries()
    session = open_session(checkpoint.path, threads=threads, cuda=device == "cuda")
    if checkpoint.reads_images:
        return session.run, None, 0, 1, session.device
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token

    forward, longest = forward_of(session), tokenizer.model_max_length
    return forward, tokenizer, len(tokenizer), longest, session.device


def outputs_of(candidate: Candidate, dataset: Dataset, split: str, max_length: int) -> Evaluation:
    """What a candidate answers to the rows of a split."""
    from compressor.train.evaluate import evaluate
    from compressor.train.feed import feed_of

    with TemporaryDirectory(prefix="compressor-") as scratch:
        feed = feed_of(
            dataset.rows(split),
            candidate.reader,
            dataset.task,
            max_length=max_length,
            folder=Path(scratch),
            batch_size=16,
        )
        return evaluate(candidate.forward, feed)


def reading_milliseconds(candidate: Candidate, rows: Iterable[Row]) -> float:
    """Median milliseconds to tokenise one row, or to decode its image."""
    import time

    reader, spent = candidate.reader, []
    for row in rows:
        started = time.perf_counter()
        reader.read(row)
        spent.append(time.perf_counter() - started)
    return float(np.median(spent)) * 1000
