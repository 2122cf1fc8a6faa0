"""What int8 costs in accuracy: the exported graph against the float model it was made from.

    python tests/benchmarks/int8_accuracy.py DATA... --seeds 3 -o FOLDER

For every data set and seed MiniLM is fine-tuned on (a tenth held out and looked at by nobody, last
weights kept), quantized with default options, exported, and both are scored on the same validation
rows (test where there are none). With --max-drop the sensitivity pass of `quantize` may leave
layers in float, judged on the held-out tenth.

Prints, for each data set, the mean of both over seeds with a 95 % interval (Student's t), and of
what int8 lost, in points, paired by seed.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distillation_ablation import MODEL, compressor, interval, write_data


def tenth(source: Path, folder: Path, rows: int) -> None:
    """Write the held-out rows of `write_data` as a data set of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (source / "train.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
    (folder / "validation.jsonl").write_text("\n".join(lines[::10]) + "\n", encoding="utf-8")
    (folder / "train.jsonl").write_text(
        "\n".join(line for number, line in enumerate(lines) if number % 10) + "\n",
        encoding="utf-8",
    )


def measure(folder: Path, seed: int, drop: str, metric: str) -> tuple[str, list[float]]:
    """Metric, the task's own if it is empty, and both scores times 100 of one seed."""
    data, held_out = folder / "data", folder / "held-out"
    teacher, suffix = folder / f"teacher-{seed}", f"{seed}-{drop}" if drop else f"{seed}"
    made = ["--data", str(data), "--epochs", "3", "--keep", "last", "--seed", str(seed)]
    compressor(["finetune", MODEL, *made, "-o", str(teacher)], Path(f"{teacher}.log"))
    int8, graph = folder / f"int8-{suffix}", folder / f"graph-{suffix}"
    words = ["quantize", str(teacher), "--seed", str(seed), "-o", str(int8)]
    if drop:
        words += ["--max-drop", drop, "--data", str(held_out)]
    compressor(words, Path(f"{int8}.log"))
    compressor(["export", str(int8), "-o", str(graph)], Path(f"{graph}.log"))
    report = folder / f"report-{suffix}"
    words = ["benchmark", str(graph), "--baseline", str(teacher), "--data", str(data)]
    words += ["--split", "validation", "--shapes", "1x16", "--starts", "1", "-o", str(report)]
    compressor(words, Path(f"{report}.log"))
    models = json.loads((report / "report.json").read_text(encoding="utf-8"))["models"]
    metric = metric or models[0]["accuracy"]["metric"]
    return metric, [100 * model["accuracy"]["all"][metric]["value"] for model in models]


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-drop", default="")
    parser.add_argument("--metric", default="", help="another one than the task's own")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    print("| data | metric | fp32 | int8 | lost |\n| --- | --- | --- | --- | --- |")
    for source in given.data:
        folder = given.output / source.name
        write_data(source, folder / "data", given.rows)
        tenth(source, folder / "held-out", given.rows)
        with ThreadPoolExecutor(given.workers) as pool:
            jobs = [
                pool.submit(measure, folder, seed, given.max_drop, given.metric)
                for seed in range(given.seeds)
            ]
            found = [job.result() for job in jobs]
        floats, ints = zip(*(scores for _, scores in found), strict=True)
        lost = interval([a - b for a, b in zip(floats, ints, strict=True)])
        row = [source.name, found[0][0], interval(list(floats)), interval(list(ints)), lost]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
