"""What unlabelled texts and copied layers are worth when labels are few.

    python tests/benchmarks/few_labels.py DATA --labels 300 --seeds 3 -o FOLDER

The first LABELS training rows of DATA keep their labels, all others lose them. A teacher a seed,
MiniLM fine-tuned on the labelled rows, then students with equal updates: two random layers 96 wide
from the labels alone, from the teacher on the labelled rows, and from the teacher on all rows; and
three layers, random and copied, from the labels alone. Scored at the end on the test rows, or on
validation rows where there are no test labels of the benchmark (SST-2); nothing is chosen.

Prints the mean of each way, a 95 % interval over seeds (Student's t) and the mean difference to
the way that it is to be compared with, paired by seed.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distillation_ablation import MODEL, accuracy, compressor, interval

SMALL = "--student-layers 2 --student-hidden 96 --student-heads 12 --lr 1e-3"
# Rows, flags, and the way to compare with.
WAYS = {
    "2 x 96, labels": ("few", f"--method task {SMALL}", ""),
    "2 x 96, teacher": ("few", f"--method soft_labels {SMALL}", "2 x 96, labels"),
    "2 x 96, teacher and unlabelled": ("all", f"--method soft_labels {SMALL}", "2 x 96, labels"),
    "3 layers random, labels": ("few", "--method task --student-layers 3 --lr 2e-4", ""),
    "3 layers copied, labels": (
        "few",
        "--method task --layers 3 --lr 2e-4",
        "3 layers random, labels",
    ),
}


def write_data(source: Path, folder: Path, labels: int) -> None:
    """`few` has the labelled rows, `all` the others too, without their labels."""
    lines = (source / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    bare = [{"text": row["text"], "label": None} for row in rows[labels:]]
    scored = source / "validation.jsonl"
    scored = scored if scored.exists() else source / "test.jsonl"
    for name, kept in (("few", rows[:labels]), ("all", rows[:labels] + bare)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in kept)
        (folder / name / "train.jsonl").write_text(text, encoding="utf-8")
        (folder / name / "validation.jsonl").write_bytes(scored.read_bytes())


def train(folder: Path, way: str, seed: int, steps: int) -> float:
    """Accuracy of the student of one way and seed."""
    data, flags, _ = WAYS[way]
    name = "".join(c if c.isalnum() else "_" for c in way) + f"-{seed}"
    length = f"--epochs {steps} --max-steps {steps} --eval-steps {steps} --keep last"
    words = f"distill {folder}/teacher-{seed} {flags} {length} --data {folder}/{data} --seed {seed}"
    compressor([*words.split(), "-o", str(folder / name)], folder / f"{name}.log")
    return accuracy(folder / name)


def train_teacher(folder: Path, seed: int) -> float:
    """Accuracy of the teacher of a seed."""
    target = folder / f"teacher-{seed}"
    words = f"finetune {MODEL} --epochs 20 --lr 1e-4 --eval-steps 100000 --keep last"
    words += f" --data {folder}/few --seed {seed}"
    compressor([*words.split(), "-o", str(target)], target.with_suffix(".log"))
    return accuracy(target)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    write_data(given.data, given.output, given.labels)
    seeds, folder = range(given.seeds), given.output
    with ThreadPoolExecutor(given.workers) as pool:
        teachers = list(pool.map(lambda seed: train_teacher(folder, seed), seeds))
        jobs = [(way, seed) for way in WAYS for seed in seeds]
        scores = pool.map(lambda job: train(folder, *job, given.steps), jobs)
        found = dict(zip(jobs, scores, strict=True))
    print("| way | accuracy | difference | to |")
    print("| --- | --- | --- | --- |")
    print(f"| teacher | {interval(teachers)} | | |")
    for way, (*_, other) in WAYS.items():
        values = [found[way, seed] for seed in seeds]
        gains = [found[way, seed] - found[other, seed] for seed in seeds] if other else []
        print(f"| {way} | {interval(values)} | {interval(gains) if gains else ''} | {other} |")


if __name__ == "__main__":
    main()
