"""A torch model in memory -> a float ONNX graph with dynamic batch and length.

The graph is captured by `torch.onnx.export` from a wrapper that returns one tensor: `logits`, or
`last_hidden_state` for a model without a head. Names of weights are the module's own, and
everything that would differ between two exports of one model (stack traces, source lines) is
stripped, so the same model gives the same bytes.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from compressor.errors import InputError
from compressor.export.attention import use_attention_node
from compressor.export.cache import (
    PRESENT,
    WithCache,
    cached_example,
    dynamic_axes,
    name_axes,
    names,
)
from compressor.export.editing import save, strip
from compressor.export.fuse import fuse
from compressor.export.quiet import quiet_libraries

DEFAULT_OPSET = 23  # the first with Attention; ONNX Runtime has it since 1.23
LOWEST_OPSET = 18  # what torch's translations are written for


class OneOutput(torch.nn.Module):
    """`model` with positional inputs and one tensor out, which is what ONNX wants to see."""

    def __init__(self, model: torch.nn.Module, inputs: list[str], output: str) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.output = output

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The output named at construction."""
        return self.model(**dict(zip(self.inputs, tensors, strict=True)))[self.output]


def accepted_inputs(
    model: torch.nn.Module, example: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The entries of `example` that `model.forward` names (a tokenizer may make more)."""
    names = inspect.signature(model.forward).parameters
    return {name: tensor for name, tensor in example.items() if name in names}


def output_name(model: torch.nn.Module, example: Mapping[str, torch.Tensor]) -> str:
    """`logits`, or `last_hidden_state` for a feature extractor, found by running the model once.

    Raises:
        InputError: the model cannot run on `example`, or returns neither.
    """
    try:
        with torch.no_grad(), quiet_libraries():
            outputs = model(**example)
    except ValueError as problem:  # e.g. a decoder that classifies and has no padding token
        raise InputError(f"{type(model).__name__} cannot run on two rows: {problem}") from problem
    for name in ("logits", "last_hidden_state"):
        if isinstance(outputs, Mapping) and name in outputs:
            return name
    raise InputError(
        f"{type(model).__name__} returns neither logits nor last_hidden_state",
        hint="export a model with a task head, or its plain encoder",
    )


def export_graph(
    model: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    path: Path,
    *,
    opset: int | None = None,
    plain_sums: bool = True,
    cache: bool = False,
) -> dict[str, int]:
    """Write `model` as a float ONNX graph, rewritten to run fast (see `fuse`).

    Args:
        model: fp32, in evaluation mode, loaded with eager attention.
        example: one batch of inputs as the tokenizer makes them; only shapes and validity matter.
        path: the file to write; past 2 GB the weights go to `<path>.data`.
        opset: ONNX operator set, 18 or newer; below 23 attention is not one node, and slower.
        plain_sums: see `fuse`.
        cache: give a decoder's graph keys and values to go on from, see `cache.py`.

    Returns:
        how many nodes each rewrite changed.

    Raises:
        InputError: the model uses something that ONNX cannot express, or `opset` is out of range.
    """
    version = DEFAULT_OPSET if opset is None else opset
    if not LOWEST_OPSET <= version <= DEFAULT_OPSET:
        raise InputError(
            f"opset {version} is not supported; expected {LOWEST_OPSET} to {DEFAULT_OPSET}"
        )
    if cache:
        inputs = cached_example(model)
        outputs = ["logits", *names(PRESENT, model.config.get_text_config().num_hidden_layers)]
        wrapper, axes = WithCache(model, list(inputs)), dynamic_axes(inputs)
    else:
        inputs = _traceable(accepted_inputs(model, example))
        outputs = [output_name(model, inputs)]
        wrapper, axes = OneOutput(model, list(inputs), outputs[0]), _dynamic_axes(inputs)
    graph = _capture(wrapper, inputs, outputs, axes, version)
    if cache:
        name_axes(graph.graph)
    _name_weights(graph, model)
    facts = fuse(graph, plain_sums=plain_sums)
    strip(graph)
    save(graph, path)
    return facts


def _traceable(example: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`example` with two rows at least: torch takes an axis of length 1 for a constant."""
    return {
        name: torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor
        for name, tensor in example.items()
    }


def _capture(
    wrapper: OneOutput | WithCache,
    inputs: dict[str, torch.Tensor],
    outputs: list[str],
    axes: tuple[dict[int, object], ...],
    opset: int,
) -> ir.Model:
    """Trace, translate and fold constants; every complaint of torch becomes one InputError."""
    import onnxscript.optimizer

    model = wrapper.eval().model
    without = _without_cache(model) if isinstance(wrapper, OneOutput) else contextlib.nullcontext()
    try:
        with quiet_libraries(), torch.no_grad(), without, use_attention_node(model, opset):
            program = torch.onnx.export(
                wrapper,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=(axes,),
                opset_version=opset,
                verbose=False,
                # torch's own pass adds a RotaryEmbedding fusion whose caches lack the batch axis
                # that ONNX Runtime insists on.
                optimize=False,
            )
            onnxscript.optimizer.optimize(program.model)
    except torch.onnx.OnnxExporterError as problem:
        cause = str(problem.__cause__ or problem).strip().splitlines()[0]
        raise InputError(
            f"{type(model).__name__} cannot be exported to ONNX: {cause}",
            hint="run again with --debug for the exporter's full report",
        ) from problem
    return program.model


def _dynamic_axes(inputs: dict[str, torch.Tensor]) -> tuple[dict[int, torch.export.Dim], ...]:
    """Batch is free everywhere, length wherever there is one; a decoder has its own length."""
    batch = torch.export.Dim("batch")
    length = torch.export.Dim("length")
    decoder_length = torch.export.Dim("decoder_length")
    axes = []
    for name, tensor in inputs.items():
        if tensor.dim() != 2:  # pictures
            axes.append({0: batch})
        else:
            axes.append({0: batch, 1: decoder_length if name.startswith("decoder") else length})
    return tuple(axes)


@contextlib.contextmanager
def _without_cache(model: torch.nn.Module) -> Iterator[None]:
    """One forward pass needs no key-value cache in the graph."""
    config = getattr(model, "config", None)
    if not hasattr(config, "use_cache"):
        yield
        return
    before = config.use_cache
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before


def _name_weights(graph: ir.Model, model: torch.nn.Module) -> None:
    """Give each matrix its module's name; the exporter calls a transposed one `val_57`."""
    prefix = "model."
    initializers = graph.graph.initializers
    for name in [name for name in initializers if name.startswith(prefix)]:
        initializers[name].name = name.removeprefix(prefix)
    unnamed: dict[bytes, list[ir.Value]] = {}
    for value in initializers.values():
        if value.name.startswith("val_") and value.shape is not None and len(value.shape) == 2:
            unnamed.setdefault(_key(value.const_value.numpy().T), []).append(value)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and name not in initializers:
            for value in unnamed.pop(_key(parameter.detach().numpy()), [])[:1]:
                value.name = name


def _key(array: np.ndarray) -> bytes:
    return repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
