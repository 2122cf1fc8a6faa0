"""Soft labels over a vocabulary: in chunks of rows, and on the whole tensors at once.

    python tests/benchmarks/soft_labels.py --rows 416 --vocabulary 30522

Takes loss and gradient of both in turns on one thread, and prints the median milliseconds of each.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from compressor.methods.objectives.soft_labels import soft_label_loss


def at_once(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same loss by operations on whole tensors, each kept for the backward pass."""
    learnt, taught = ((z.float() / temperature).log_softmax(-1) for z in (student, teacher))
    return temperature**2 * (taught.exp() * (taught - learnt)).sum(-1).mean()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=416)
    parser.add_argument("--vocabulary", type=int, default=30_522)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape = given.rows, given.vocabulary
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    spent: dict[str, list[float]] = {"in chunks": [], "at once": []}
    for _ in range(given.rounds):
        for name, loss in zip(spent, (soft_label_loss, at_once), strict=True):
            student.grad = None
            started = time.perf_counter()
            loss(student, teacher, 2.0).backward()
            spent[name].append(1e3 * (time.perf_counter() - started))
    for name, times in spent.items():
        print(f"{name}: {median(times):.0f} ms")


if __name__ == "__main__":
    main()
