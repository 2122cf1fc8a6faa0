"""Leave-one-domain-out, way by way, over several seeds.

    python tests/benchmarks/domains.py gather amazon_dvd amazon_electronics imdb_subset \
        sentiment_sentences/* tweeteval/sentiment -o reviews
    python tests/benchmarks/domains.py measure reviews --model MODEL --epochs 3 -o FOLDER

`gather` makes one folder of data folders of sentiment data sets with the labels 0 and 1 (of three
labels the middle one is left out): 600 rows of each to train on, 200 to choose on, 400 to test, all
spread evenly over their files, for some are sorted by label.

`measure` runs `finetune --domains` for each way and seed: whatever is left out has no say in
training or choice. Prints the mean score of the unseen domains with a 95 % interval over seeds
(Student's t), its difference to plain training, paired by seed, and the scores of the seen ones.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from distillation_ablation import compressor, interval

PLAIN = "plain"
WAYS = {
    PLAIN: "",
    "swa": "--with swa",
    "swad": "--with swad --eval-steps 10",
    "sam": "--with sam",
    "hype": "--with hype --hype-sigma 0.01 --hype-dropout 0",
    "alrs": "--with alrs --alrs-period 0.25",
    "alrs, swad": "--with alrs --alrs-period 0.25 --with swad --eval-steps 10",
}
ROWS = {"train": 600, "validation": 200, "test": 400}


def gather(sources: list[Path], folder: Path) -> None:
    """Write a folder of data folders, one for each source."""
    for source in sources:
        part = folder / source.name
        part.mkdir(parents=True, exist_ok=True)
        for split, count in ROWS.items():
            file = source / f"{split}.jsonl"
            if not file.exists():
                continue
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            if max(row["label"] for row in rows) == 2:
                rows = [{**row, "label": row["label"] // 2} for row in rows if row["label"] != 1]
            lines = [json.dumps({key: row[key] for key in ("text", "label")}) for row in rows]
            chosen = [lines[k * len(lines) // count] for k in range(min(count, len(lines)))]
            (part / file.name).write_text("\n".join(chosen) + "\n", encoding="utf-8")
        if not (part / "train.jsonl").exists():  # nothing is chosen on what is never trained on
            (part / "validation.jsonl").unlink(missing_ok=True)


def sweep(folder: Path, way: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Scores of one way and seed, times 100: of each unseen domain, and means of both kinds."""
    target = folder / f"{way.replace(', ', '-')}-{seed}"
    words = ["finetune", given.model, "--data", str(given.data), "--domains", *WAYS[way].split()]
    words += [*given.flags.split(), "--epochs", str(given.epochs), "--lr", given.lr]
    compressor([*words, "--seed", str(seed), "-o", str(target)], target.with_suffix(".log"))
    report = json.loads((target / "report/domains.json").read_text(encoding="utf-8"))
    found = {entry["domain"]: 100 * entry["outside"]["value"] for entry in report["domains"]}
    seen = mean(100 * entry["inside"] for entry in report["domains"])
    return {**found, "mean": mean(found.values()), "seen": seen}


def measure(given: argparse.Namespace) -> None:
    """Train what is missing and print the table."""
    given.output.mkdir(parents=True, exist_ok=True)
    seeds, ways = range(given.seeds), given.ways.split(";")
    jobs = [(way, seed) for way in ways for seed in seeds]
    with ThreadPoolExecutor(given.workers) as pool:
        made = pool.map(lambda job: sweep(given.output, *job, given), jobs)
        found = dict(zip(jobs, made, strict=True))
    columns = list(found[jobs[0]])
    print(f"| way | {' | '.join(columns)} | mean against plain |")
    print(f"| --- |{' --- |' * (len(columns) + 1)}")
    for way in ways:
        cells = [interval([found[way, seed][name] for seed in seeds]) for name in columns]
        against = ""
        if PLAIN in ways and way != PLAIN:
            gains = [found[way, seed]["mean"] - found[PLAIN, seed]["mean"] for seed in seeds]
            against = interval(gains)
        print(f"| {way} | {' | '.join(cells)} | {against} |")


def main() -> None:
    """Gather, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    gathering = verbs.add_parser("gather")
    gathering.add_argument("sources", type=Path, nargs="+")
    measuring = verbs.add_parser("measure")
    measuring.add_argument("data", type=Path)
    measuring.add_argument("--model", required=True)
    measuring.add_argument("--seeds", type=int, default=3)
    measuring.add_argument("--epochs", type=float, default=3)
    measuring.add_argument("--lr", default="1e-4")
    measuring.add_argument("--flags", default="", help="more flags of finetune")
    measuring.add_argument("--ways", default=";".join(WAYS), help="names separated by semicolons")
    measuring.add_argument("--workers", type=int, default=2)
    for each in (gathering, measuring):
        each.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    if given.verb == "gather":
        gather(given.sources, given.output)
    else:
        measure(given)


if __name__ == "__main__":
    main()
