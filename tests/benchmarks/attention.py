"""A training step in bf16 on a processor: torch's fused attention, and plain matrix products.

    python tests/benchmarks/attention.py MODEL --shapes 32x16,32x64,32x128 --dropout 0
    python tests/benchmarks/attention.py VIT --shapes 32x1

Passes of random rows (of an image model BATCHxANYTHING) forward and back, on one thread, both kinds
in turns; prints the median milliseconds. Torch's fused kernels have no dropout: with some, its
attention is made of plain products too.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING

import torch

from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.source import resolve_model
from compressor.model.load import load
from compressor.model.tasks import task_of

if TYPE_CHECKING:
    from torch import nn

KINDS = ("sdpa", "eager")


def inputs_of(model: nn.Module, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Random rows: a quarter of the texts are half as long."""
    draw = torch.Generator().manual_seed(0)
    if hasattr(model.config, "image_size"):
        size = model.config.image_size
        return {"pixel_values": torch.randn(batch, 3, size, size, generator=draw)}
    ids = torch.randint(model.config.vocab_size, (batch, length), generator=draw)
    mask = torch.ones_like(ids)
    mask[: batch // 4, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def milliseconds(model: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """Of one pass forward and back."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs).logits.float().square().mean()
    loss.backward()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--shapes", default="32x16,32x32,32x64,32x128")
    parser.add_argument("--dropout", type=float, help="of all dropout layers; the model's own")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(resolve_model(given.model))
    task = task_of(checkpoint) or "text-classification"
    model = load(checkpoint, task, new_head=True, labels=("a", "b")).model.train()
    for module in model.modules():
        if given.dropout is not None and isinstance(module, torch.nn.Dropout):
            module.p = given.dropout
    print(f"| shape | {' | '.join(f'{kind} ms' for kind in KINDS)} |\n| --- | --- | --- |")
    for shape in given.shapes.split(","):
        inputs = inputs_of(model, *map(int, shape.split("x")))
        spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(given.rounds + 1):
            for kind in KINDS:
                model.set_attn_implementation(kind)
                taken = milliseconds(model, inputs)
                if number:  # the first warms up
                    spent[kind].append(taken)
        print(f"| {shape} | {' | '.join(f'{median(spent[kind]):.0f}' for kind in KINDS)} |")


if __name__ == "__main__":
    main()
