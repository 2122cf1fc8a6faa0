"""Training that is meant to generalise, on a student of three layers, against a teacher.

    python tests/benchmarks/generalisation.py DATA --metric accuracy --seeds 3 -o FOLDER
    python tests/benchmarks/generalisation.py DATA --time -o FOLDER
    python tests/benchmarks/generalisation.py DATA --rows 1111 --seeds 5 --flags "--precision fp32"
        --ways "plain;no dropout;hype 1e-4;hype 1e-3;hype 1e-2;hype 1e-1;dropout, hype 1e-2"
        -o FOLDER

The student is MiniLM without every other layer, and each way trains it for the same steps at the
same rate, in the machine's number format, for which the noise between layers is large enough;
nothing is chosen on the rows that are scored. Weights are those of the last step, or what a way
makes of them; those of `constant` are the last ones of `swa`, to the bit. The teacher is MiniLM on
the same rows. DATA and the rows that are held out are those of `distillation_ablation.py`, which
may share FOLDER.

Way by way METRIC's mean times 100 over seeds is printed, with a 95 % interval (Student's t) and the
differences to plain training, to `constant` and to distillation, paired by seed; then the loss on
at most 512 of the scored rows, in fp32, and by how much it rises: one step of 0.05 uphill, and in
the mean over random directions a quarter as long as the weights; last the mean cosine between the
tokens of a row behind the last layer, which is high where hidden states collapse.

With --time: milliseconds of a step of each way, in turns, alone on the machine; the median of
ROUNDS. The teacher's answers, which are asked for once before the training, are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from distillation_ablation import MODEL, compressor, interval, train_teacher, write_data

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded

PLAIN, LAST, TAUGHT = AGAINST = "plain", "constant", "soft_labels"
SHOWN = {"loss": "loss", "uphill": "worst", "around": "average", "cosine": "cosine"}
NOISE = "--hype-sigma 0.01 --hype-dropout 0"
WAYS = {
    PLAIN: "",
    LAST: "--schedule constant",
    "swa": "--with swa",
    "sam": "--with sam",
    "asam": "--with asam",
    "delta_sam": "--with delta_sam",
    "hype": f"--with hype {NOISE}",
    "swa, hype": f"--with swa --with hype {NOISE}",
    TAUGHT: "--method soft_labels",
    "soft_labels, swa": "--method soft_labels --with swa",
}
# More noise and less, without hidden dropout but for the last; of these, fp32 rounds none away.
WAYS_TO_NAME = {
    "no dropout": "--with hype --hype-sigma 0 --hype-dropout 0",
    **{
        f"hype {sigma}": f"--with hype --hype-sigma {sigma} --hype-dropout 0"
        for sigma in ("1e-4", "1e-3", "1e-2", "1e-1")
    },
    "dropout, hype 1e-2": "--with hype --hype-sigma 1e-2",
}


def words_of(folder: Path, way: str, seed: int, given: argparse.Namespace) -> list[str]:
    """The command line of a way, without its length and output."""
    small, flags = str(folder / "small"), f"{(WAYS | WAYS_TO_NAME)[way]} {given.flags}".split()
    begun = ["finetune", small]
    if TAUGHT in way:
        begun = ["distill", str(folder / f"teacher-{seed}"), "--student", small]
        begun += ["--teacher-cache", str(folder / f"answers-{seed}")]
    data = ["--data", str(folder / "data"), "--lr", given.lr, "--keep", "last"]
    return [*begun, *flags, *data, "--seed", str(seed)]


def trained(folder: Path, way: str, seed: int, given: argparse.Namespace) -> Path:
    """The model of one way and seed."""
    name = "".join(c if c.isalnum() else "_" for c in way)
    target = folder / f"{name}-{given.epochs:g}-{seed}"
    words = [*words_of(folder, way, seed, given), "--epochs", str(given.epochs)]
    compressor([*words, "-o", str(target)], Path(f"{target}.log"))
    return target


def metric_of(target: Path, metric: str) -> float:
    """A metric of the weights that were kept, times 100."""
    record = json.loads((target / "compression.json").read_text(encoding="utf-8"))
    return 100 * record["steps"][-1]["metrics"][metric]


def flatness(folder: Path, target: Path) -> dict[str, float]:
    """The loss on the scored rows, its rises around the weights, and how alike tokens are."""
    from compressor.checkpoint.folder import open_checkpoint
    from compressor.commands.landscape import rows_of, sharpness
    from compressor.data.dataset import open_dataset
    from compressor.model.load import load
    from compressor.model.tasks import labels_of

    checkpoint = open_checkpoint(target)
    dataset = open_dataset(str(folder / "data"), model_labels=labels_of(checkpoint))
    loaded = load(checkpoint, dataset.task.name)
    sizes = {"rows": 512, "max_length": 128}
    rises = sharpness(loaded, dataset, "validation", **sizes, rho=0.05, gamma=0.25, seed=0)
    return {**rises, "cosine": likeness(loaded, rows_of(loaded, dataset, "validation", **sizes))}


def likeness(loaded: Loaded, batches: list[dict[str, torch.Tensor]]) -> float:
    """The cosine between two tokens of a row behind the last layer, in the mean over all rows."""
    import torch

    from compressor.model.inputs import fed

    found = []
    for batch in batches:
        with torch.no_grad():
            answer = loaded.model(**fed(loaded.model, batch), output_hidden_states=True)
        there = batch["attention_mask"][..., None]  # [batch, length, 1]
        units = torch.nn.functional.normalize(answer.hidden_states[-1], dim=-1) * there
        count = there.sum((1, 2))  # [batch]
        pairs = units.sum(1).square().sum(-1) - count  # of a token with itself it is 1
        found.append(pairs / (count * (count - 1)))
    return float(torch.cat(found).mean())


def milliseconds(folder: Path, way: str, given: argparse.Namespace) -> float:
    """Of one step, by the rows that a short training got through in a second."""
    target = folder / "timed"
    words = [*words_of(folder, way, 0, given), "--max-steps", "60", "-o", str(target)]
    compressor(words, Path(f"{target}.log"))
    facts = json.loads((target / "run.json").read_text(encoding="utf-8"))
    return 32_000 / facts["examples_per_second"]


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", default="2e-4")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ways", default=";".join(WAYS), help="names separated by semicolons")
    parser.add_argument("--flags", default="", help="more flags of every way")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    folder, seeds, ways = given.output, range(given.seeds), given.ways.split(";")
    write_data(given.data, folder / "data", given.rows)
    cut = f"prune {MODEL} --method layer_drop --drop 3 --strategy alternate-even -o".split()
    compressor([*cut, str(folder / "small")], folder / "small.log")
    if given.time:
        train_teacher(folder, 0)
        spent = [[milliseconds(folder, way, given) for way in ways] for _ in range(given.rounds)]
        for way, each in zip(ways, zip(*spent, strict=True), strict=True):
            print(f"| {way} | {statistics.median(each):.0f} |")
        return
    taught = any(TAUGHT in way for way in ways)
    with ThreadPoolExecutor(given.workers) as pool:
        if taught:
            list(pool.map(lambda seed: train_teacher(folder, seed), seeds))
        jobs = [(way, seed) for way in ways for seed in seeds]
        targets = pool.map(lambda job: trained(folder, *job, given), jobs)
        made = dict(zip(jobs, targets, strict=True))
    found = {job: metric_of(target, given.metric) for job, target in made.items()}
    flat = {job: flatness(folder, target) for job, target in made.items()}
    others = [other for other in AGAINST if other in ways]
    heads = ["way", given.metric, *(f"against {other}" for other in others), *SHOWN]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    if taught:
        teachers = [metric_of(folder / f"teacher-{seed}", given.metric) for seed in seeds]
        print(f"| teacher | {interval(teachers)} |{' |' * (len(heads) - 2)}")
    for way in ways:
        gains = [
            interval([found[way, s] - found[other, s] for s in seeds]) if other != way else ""
            for other in others
        ]
        values = interval([found[way, seed] for seed in seeds])
        shown = [
            interval([flat[way, seed][name] for seed in seeds], digits=3) for name in SHOWN.values()
        ]
        print(f"| {' | '.join([way, values, *gains, *shown])} |")


if __name__ == "__main__":
    main()
