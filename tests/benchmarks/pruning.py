"""Pruning methods side by side, over several seeds, from fine-tuned MiniLM teachers.

    python tests/benchmarks/pruning.py zeros DATA --epochs 6 --seeds 3 -o FOLDER
    python tests/benchmarks/pruning.py layers DATA --epochs 3 --seeds 3 -o FOLDER
    python tests/benchmarks/pruning.py units DATA --seeds 3 -o FOLDER
    python tests/benchmarks/pruning.py recovery DATA --epochs 3 --seeds 3 -o FOLDER
    python tests/benchmarks/pruning.py transfer DATA --text TEXT --epochs 3 --seeds 3 -o FOLDER

`zeros`: 70, 80, 85 and 90 % of the encoder's weights, at once without training, at once with
training afterwards, and gradually; all that train do so for EPOCHS with the teacher's answers
alone. Also two of every four, at once.
`layers`: two and three layers dropped by every strategy, before and after EPOCHS of training.
`units`: half of the encoder's multiply-accumulates removed as heads and neurons, nothing trained.
`recovery`: 50, 65 and 80 % of them removed, by the Fisher search, before and after EPOCHS of
training with the teacher's answers, and by CoFi within EPOCHS.
`transfer`: a masked language model, trained on TEXT for --text-epochs, loses 85 and 90 % of its
weights while it is trained for --prune-epochs more (Prune Once for All), or at once; all are then
fitted to the task for EPOCHS with their zeros locked. There is one language model of a kind, kept
beside TEXT, for all tasks and seeds: pruned once.

DATA, the rows that are held out and the teachers are those of `distillation_ablation.py`, which
may share FOLDER. With --choose the scored rows are the held-out training rows: options are chosen
there, with --flags to vary them. Last weights are scored. Prints the mean of each way with a 95 %
interval over seeds (Student's t), and its mean difference to the teacher, paired by seed.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from distillation_ablation import (
    MODEL,
    accuracy,
    compressor,
    interval,
    train_teacher,
    write_data,
)

SPARSITIES = (0.7, 0.8, 0.85, 0.9)
AT_ONCE = {
    "random": "--method magnitude --importance random",
    "magnitude": "--method magnitude",
    "magnitude, global": "--method magnitude --scope global",
    "wanda": "--method wanda",
    "sparsegpt": "--method sparsegpt",
    "obert": "--method obert",
}
# GMP*'s learning: the teacher's softened answers and a rate that starts anew.
TAUGHT = "--temperature 5.5 --hard-weight 0"
LOCKED = (
    f"distill {{teacher}} --student {{last}} --with lock_sparsity --method soft_labels {TAUGHT}"
)
GRADUAL = (
    "prune {teacher} --method gmp --prune-start 0.1 --prune-end 0.7 --prunes-per-epoch 10 "
    f"--teacher {{teacher}} --objective soft_labels {TAUGHT} --warmup 0 --final-lr 0.01"
)
STRATEGIES = ("top", "bottom", "alternate-even", "symmetric", "contribution")
UNITS = ("fisher", "michel", "magnitude", "random")

READ = "--task masked-lm --batch-size 64 --lr 5e-4 --warmup 0.01 --keep last --data {text}"
WORDS = f"finetune {MODEL} {READ} --epochs {{text_epochs}}"
ONCE_FOR_ALL = (
    "prune {last} --method gmp --prune-end 0.5 --rewind --teacher {last} "
    f"--objective soft_labels --temperature 2 --hard-weight 0.5 {READ} --epochs {{prune_epochs}}"
)
FITTED = "distill {teacher} --student {last} --method soft_labels --temperature 2 --hard-weight 0.5"

Ways = dict[str, list[str]]
LOCKS: dict[Path, Lock] = defaultdict(Lock)


def zeros(train: str, epochs: float) -> Ways:
    """Commands of every way and sparsity; those that train take `train`."""
    ways: Ways = {}
    for sparsity in SPARSITIES:
        share, shown = f" --sparsity {sparsity}", f"{sparsity:.0%}"
        once = {name: f"prune {{teacher}} {flags}{share}" for name, flags in AT_ONCE.items()}
        ways |= {f"{shown} {name}": [command] for name, command in once.items()}
        for name in ("random", "magnitude"):
            ways[f"{shown} {name}, trained"] = [once[name], f"{LOCKED} {train}"]
        first = f" --initial-sparsity {max(0.5, sparsity - 0.2):.1f}"
        cycle = f" --cycle-epochs {epochs / 5:g} "
        ways[f"{shown} GMP*"] = [GRADUAL + share + first + cycle + train]
    for name in ("magnitude", "wanda", "sparsegpt", "obert"):
        ways[f"2:4 {name}"] = [f"prune {{teacher}} {AT_ONCE[name]} --pattern 2:4"]
    return ways


def layers(train: str, epochs: float) -> Ways:
    """Commands of every strategy, with and without training."""
    ways: Ways = {}
    for drop in (2, 3):
        for strategy in STRATEGIES:
            cut = f"prune {{teacher}} --method layer_drop --drop {drop} --strategy {strategy}"
            ways[f"{drop} {strategy}"] = [cut]
            taught = f"distill {{teacher}} --student {{last}} --method soft_labels {train}"
            ways[f"{drop} {strategy}, trained"] = [cut, taught]
    return ways


def units(train: str, epochs: float) -> Ways:
    """Commands of every importance, and of every repair of the first."""
    flags = "prune {teacher} --method fisher --mac-ratio 0.5"
    ways = {name: [f"{flags} --repair none --importance {name}"] for name in UNITS}
    for repair in ("rescale", "refit"):
        ways[f"fisher, {repair}"] = [f"{flags} --repair {repair}"]
    return ways


def recovery(train: str, epochs: float) -> Ways:
    """Commands of both searches at every budget."""
    ways: Ways = {}
    taught = f"distill {{teacher}} --student {{last}} --method soft_labels {train}"
    layers = "--teacher {teacher} --objective matched_layers --objective soft_labels"
    for ratio in (0.5, 0.35, 0.2):
        cut = f"prune {{teacher}} --method fisher --mac-ratio {ratio}"
        gone = f"{1 - ratio:.0%}"
        ways[f"{gone} fisher"] = [cut]
        ways[f"{gone} fisher, trained"] = [cut, taught]
        cofi = f"prune {{teacher}} --method cofi --mac-ratio {ratio} {layers} {train}"
        ways[f"{gone} cofi"] = [cofi]
    return ways


def transfer(train: str, epochs: float) -> Ways:
    """Commands of every way and sparsity, all from one masked language model."""
    ways: Ways = {"dense": [WORDS, f"{FITTED} {train}"]}
    locked = f"{FITTED} --with lock_sparsity {train}"
    for sparsity in (0.85, 0.9):
        share = f" --sparsity {sparsity}"
        ways[f"{sparsity:.0%} Prune Once for All"] = [WORDS, ONCE_FOR_ALL + share, locked]
        for name in ("magnitude", "random"):
            cut = f"prune {{last}} {AT_ONCE[name]}{share}"
            ways[f"{sparsity:.0%} {name} at once"] = [WORDS, cut, locked]
    return ways


def _filled(command: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        command = command.replace(name, value)
    return command


def score(folder: Path, commands: list[str], seed: int, data: str) -> float:
    """Accuracy at the end of one way's commands."""
    teacher = last = folder / f"teacher-{seed}"
    for number, command in enumerate(commands):
        # Ways that begin alike share what they begin with.
        begun = hashlib.sha256(" | ".join(commands[: number + 1]).encode()).hexdigest()[:12]
        target = folder / f"{begun}-{data}-{seed}"
        words = command.format(teacher=teacher, last=last).split()
        if "masked-lm" in words:
            target = Path(words[words.index("--data") + 1]).with_name(f"words-{begun}")
        else:
            words += ["--data", str(folder / data), "--seed", str(seed)]
        words += ["-o", str(target)]
        if "--importance random" in command:
            words += ["--random-seed", str(seed + 1)]
        if "soft_labels" in words and "masked-lm" not in words:
            words += ["--teacher-cache", str(folder / f"answers-{seed}")]
        with LOCKS[target]:
            compressor(words, target.with_suffix(".log"))
        last = target
    return accuracy(last)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = {
        "zeros": zeros,
        "layers": layers,
        "units": units,
        "recovery": recovery,
        "transfer": transfer,
    }
    parser.add_argument("table", choices=tables)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--text", type=Path, help="folder of texts; DATA's own if absent")
    parser.add_argument("--text-epochs", type=float, default=10)
    parser.add_argument("--prune-epochs", type=float, default=10)
    parser.add_argument("--lr", default="2e-4")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--choose", action="store_true", help="score held-out training rows")
    parser.add_argument("--ways", default="", help="names separated by two commas; all if absent")
    parser.add_argument(
        "--flags", default="", help="more for the first command of every way; likewise separated"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    folder, seeds = given.output, range(given.seeds)
    write_data(given.data, folder / "data", given.rows)
    data = "held-out" if given.choose else "data"
    if given.choose:
        lines = (given.data / "train.jsonl").read_text(encoding="utf-8").splitlines()[: given.rows]
        (folder / data).mkdir(exist_ok=True)
        (folder / data / "train.jsonl").write_bytes((folder / "data/train.jsonl").read_bytes())
        (folder / data / "validation.jsonl").write_text("\n".join(lines[::10]) + "\n")
    train = f"--epochs {given.epochs:g} --lr {given.lr} --keep last"
    ways = tables[given.table](train, given.epochs)
    if given.table == "transfer":
        read = {"{text}": str(given.text or folder / "data")}
        read |= {"{text_epochs}": f"{given.text_epochs:g}"}
        read |= {"{prune_epochs}": f"{given.prune_epochs:g}"}
        ways = {name: [_filled(each, read) for each in way] for name, way in ways.items()}
    ways = {name: ways[name] for name in given.ways.split(",,")} if given.ways else ways
    ways = {
        f"{name} {flags}".strip(): [f"{first} {flags}".strip(), *more]
        for flags in given.flags.split(",,")
        for name, (first, *more) in ways.items()
    }
    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(lambda seed: train_teacher(folder, seed), seeds))
        if given.choose:  # scored by what leaves the teacher as it is
            ways = {"teacher": ["prune {teacher} --method magnitude --sparsity 0"], **ways}
        jobs = [(name, seed) for name in ways for seed in seeds]
        scores = pool.map(lambda job: score(folder, ways[job[0]], job[1], data), jobs)
        found = dict(zip(jobs, scores, strict=True))
    teachers = [
        found["teacher", seed] if given.choose else accuracy(folder / f"teacher-{seed}")
        for seed in seeds
    ]
    print("| way | accuracy | against the teacher |\n| --- | --- | --- |")
    print(f"| teacher | {interval(teachers)} | |")
    for name in ways:
        if name != "teacher":
            values = [found[name, seed] for seed in seeds]
            against = [value - teacher for value, teacher in zip(values, teachers, strict=True)]
            print(f"| {name} | {interval(values)} | {interval(against)} |")


if __name__ == "__main__":
    main()
