"""Does the file compute what the model computes? Asked of the graph as re-read from disk.

Inputs are random token ids of the real vocabulary at two batch sizes and two lengths, padded on
the right and, in one row, on the left. A float graph must agree to 1e-4 of the largest output. An
int8 graph may be off by rounding: PyTorch simulates the same rounding, and the graph's error must
not exceed three times that (and 1 % is always allowed). Wrong scales, zero points or saturated
sums miss the mark by the size of the outputs themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.errors import GateError
from compressor.export.cache import position_ids
from compressor.export.graph import accepted_inputs
from compressor.export.session import GRAPH, POSITIONS, open_session

SHAPES = ((2, 11), (5, 23))  # (batch, length)
FLOAT_TOLERANCE = 1e-4
ROUNDING_FACTOR = 3.0
SMALLEST_ROUNDING = 1e-2
GENERATED = 6  # tokens
Inputs = dict[str, torch.Tensor]


def random_inputs(
    model: torch.nn.Module, example: Mapping[str, torch.Tensor], *, seed: int = 0
) -> Callable[[int, int], Inputs]:
    """A maker of inputs like `example` for any batch and length.

    Args:
        model: says the vocabulary and the special tokens.
        example: names and kinds of the inputs.
        seed: same seed, same inputs.
    """
    names = accepted_inputs(model, example)
    config = model.config

    def make(batch: int, length: int) -> Inputs:
        draw = torch.Generator().manual_seed(seed + 1000 * batch + length)
        mask = _padding(batch, length)
        made: Inputs = {}
        for name, like in names.items():
            if like.is_floating_point():
                made[name] = torch.randn(batch, *like.shape[1:], generator=draw)
            elif name.endswith("attention_mask"):
                made[name] = mask if name == "attention_mask" else torch.ones_like(mask)
            elif name == POSITIONS:
                made[name] = position_ids(mask, length)
            elif name == "token_type_ids":
                second = (torch.arange(length) >= length // 2).long().expand(batch, length)
                made[name] = second * mask * int(getattr(config, "type_vocab_size", 1) > 1)
            elif name == "input_ids" and "attention_mask" in names:
                made[name] = _tokens(config, mask, draw)
            else:  # a decoder's tokens
                made[name] = _tokens(config, torch.ones_like(mask), draw)
        return made

    return make


def _padding(batch: int, length: int) -> torch.Tensor:
    """Row 0 whole, row 1 padded on the left, the others more and more on the right."""
    mask = torch.ones(batch, length, dtype=torch.long)
    if batch > 1:
        mask[1, : length // 4] = 0
    for row in range(2, batch):
        mask[row, length - row * length // (2 * batch) :] = 0
    return mask


def _tokens(config: Any, mask: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Random ids without the special ones; padding where `mask` is 0."""
    vocabulary = config.get_text_config().vocab_size
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    special = {name: getattr(config, name, None) for name in names}
    taken = {number for number in special.values() if isinstance(number, int)}
    ordinary = torch.tensor([number for number in range(vocabulary) if number not in taken])
    ids = ordinary[torch.randint(len(ordinary), mask.shape, generator=draw)]
    if config.is_encoder_decoder and isinstance(special["eos_token_id"], int):
        # T5 classifies by the end-of-sequence token, of which every row must have one.
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        ids[torch.arange(len(ids)), last] = special["eos_token_id"]
    pad = special["pad_token_id"]
    return torch.where(mask.bool(), ids, pad if isinstance(pad, int) else 0)


def check_parity(
    model: torch.nn.Module,
    folder: Path,
    make_inputs: Callable[[int, int], Inputs],
    *,
    tolerance: float | None = None,
    simulation: AbstractContextManager[None] | None = None,
    final: bool = True,
) -> dict[str, Any]:
    """Compare `folder`/model.onnx with `model`.

    Args:
        model: the float model, in evaluation mode.
        folder: where the graph was written.
        make_inputs: (batch, length) -> inputs; see `random_inputs`.
        tolerance: largest error allowed, as a share of the largest output; None for 1e-4, or for
            what `simulation` shows.
        simulation: makes `model` compute as the int8 graph does; None for a float graph.
        final: whether this is the graph that is kept, whose limit the user may move.

    Returns:
        error and tolerance as shares of the largest output, largest_difference, agreement (share
        of rows with the same largest output), rounding_error of the simulation, shapes.

    Raises:
        GateError: the error is larger than allowed, or not a number.
    """
    batches = [make_inputs(*shape) for shape in SHAPES]
    wanted = [_run(model, inputs) for inputs in batches]
    session = open_session(folder, threads=torch.get_num_threads())
    arrays = [{name: tensor.numpy() for name, tensor in inputs.items()} for inputs in batches]
    found = [session.run(inputs) for inputs in arrays]
    facts: dict[str, Any] = _compare(wanted, found, batches)
    limit = FLOAT_TOLERANCE if tolerance is None else tolerance
    if simulation is not None:
        with simulation:
            rounded = [_run(model, inputs) for inputs in batches]
        facts["rounding_error"] = _compare(wanted, rounded, batches)["error"]
        if tolerance is None:
            limit = max(ROUNDING_FACTOR * facts["rounding_error"], SMALLEST_ROUNDING)
    facts |= {"tolerance": limit, "shapes": [list(shape) for shape in SHAPES]}
    if not facts["error"] <= limit:  # also when it is not a number, which JSON does not know
        told = {name: n if np.isfinite(n).all() else str(n) for name, n in facts.items()}
        kind = "float" if simulation is None else "int8"
        raise GateError(
            f"parity: the {kind} graph differs from PyTorch by {facts['error']:.2e} of the largest "
            f"output, allowed are {limit:.2e}; the outputs differ by up to "
            f"{facts['largest_difference']:.3g} and {facts['agreement']:.0%} of the rows agree",
            hint="--tolerance moves the limit" if final else "",
            where=GRAPH,
            facts={"parity": told},
        )
    return facts


def check_generation(
    model: torch.nn.Module, folder: Path, make_inputs: Callable[[int, int], Inputs]
) -> dict[str, Any]:
    """Compare what a decoder's float graph writes, token by token, with what PyTorch writes.

    Args:
        model: the float model, in evaluation mode.
        folder: where the graph with keys and values was written.
        make_inputs: (batch, length) -> inputs; see `random_inputs`.

    Returns:
        tokens: how many were compared.

    Raises:
        GateError: the graph writes something else.
    """
    from compressor.export.greedy import continued

    inputs = {name: make_inputs(2, 11)[name] for name in ("input_ids", "attention_mask")}
    wanted = _written_on(model, inputs, GENERATED)
    session = open_session(folder, threads=torch.get_num_threads())
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    found = continued(session, arrays, GENERATED)
    if not np.array_equal(found, wanted):
        raise GateError(
            f"parity: the graph goes on with the tokens {found.tolist()} where PyTorch writes "
            f"{wanted.tolist()}",
            where=GRAPH,
            facts={"generation_parity": {"found": found.tolist(), "wanted": wanted.tolist()}},
        )
    return {"tokens": int(found.size)}


def _written_on(model: torch.nn.Module, inputs: Inputs, count: int) -> np.ndarray:
    """The likeliest next tokens without any cache, [rows, count]."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(count):
        given = {"input_ids": ids, "attention_mask": mask}
        given[POSITIONS] = position_ids(mask, ids.shape[1])
        with torch.no_grad():
            logits = model(**accepted_inputs(model, given)).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, -count:].numpy()


def _run(model: torch.nn.Module, inputs: Inputs) -> np.ndarray:
    with torch.no_grad():
        outputs = model(**inputs)
    key = "logits" if "logits" in outputs else "last_hidden_state"
    return outputs[key].numpy()


def _compare(
    wanted: list[np.ndarray], found: list[np.ndarray], batches: list[Inputs]
) -> dict[str, float]:
    """Error facts over all batches; outputs of padding are nobody's business."""
    differences, sizes, agreed = [], [], []
    for want, have, inputs in zip(wanted, found, batches, strict=True):
        keep = _kept(want, inputs)
        left, right = want[keep], have[keep]
        differences.append(float(np.abs(left - right).max()))
        sizes.append(float(np.abs(left).max()))
        agreed.append((left.argmax(-1) == right.argmax(-1)).ravel())
    largest = float(np.max(differences))  # NaN wins, unlike with max()
    size = max(sizes)
    return {
        "error": largest / size if size else largest,
        "largest_difference": largest,
        "agreement": float(np.concatenate(agreed).mean()),
    }


def _kept(output: np.ndarray, inputs: Inputs) -> np.ndarray | slice:
    """The positions that are not padding, for an output with one row per input token."""
    mask = inputs.get("attention_mask")
    per_token = mask is not None and output.ndim == 3 and output.shape[:2] == tuple(mask.shape)
    return (
        mask.numpy().astype(bool)
        if per_token and "decoder_input_ids" not in inputs
        else slice(None)
    )
