"""How much one busy core slows a training step, with and without a short spin of the threads.

    python tests/benchmarks/busy_core.py

Trains MiniLM with random labels at batch 32, length 16, for a few steps, four times in turns:
quiet or beside a busy loop, with libgomp's own spin or with the 1,000 rounds that `compressor`
sets. Prints seconds a step.
"""

from __future__ import annotations

import os
import subprocess
import sys

STEPS = """
import time, torch
from transformers import BertConfig, BertForSequenceClassification
config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                    intermediate_size=1536)
model = BertForSequenceClassification(config).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
ids, labels = torch.randint(1000, 20000, (32, 16)), torch.randint(0, 2, (32,))
for step in range(12):
    if step == 4:
        started = time.perf_counter()
    optimizer.zero_grad()
    model(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()
print((time.perf_counter() - started) / 8)
"""


def seconds_a_step(spin: str, *, busy: bool) -> float:
    """Run the steps in a process of their own."""
    environment = {**os.environ, **({"GOMP_SPINCOUNT": spin} if spin else {})}
    other = None
    if busy:
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        done = subprocess.run(
            [sys.executable, "-c", STEPS],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        if other is not None:
            other.kill()
    return float(done.stdout)


if __name__ == "__main__":
    for busy in (False, True):
        for spin in ("", "1000"):
            name = f"{'one core busy' if busy else 'quiet'}, spin {spin or 'as libgomp has it'}"
            print(f"{name}: {seconds_a_step(spin, busy=busy):.3f} s a step")
