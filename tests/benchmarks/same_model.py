"""How often the interval of a speed-up holds the truth, where the truth is known: 1.

    python tests/benchmarks/same_model.py MODEL --runs 20
    python tests/benchmarks/same_model.py MODEL --runs 20 --busy

Runs `compressor benchmark` on MODEL and a copy of it, RUNS times, with --busy beside an endless
loop that wants one core. Prints the speed-up of every run with its 95 % interval, at each shape and
over all, how many intervals hold 1, and how wide they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

BUSY = "while True: pass"


def speeds(model: Path, twin: Path, report: Path, flags: list[str]) -> list[dict[str, float]]:
    """The speed-ups of one run: over all shapes first."""
    words = ["benchmark", str(twin), "--baseline", str(model), "-o", str(report), "--force"]
    command = [sys.executable, "-m", "compressor", *words, *flags, "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((report / "report.json").read_text())["models"][1]
    whole = {
        "speedup": found["speedup"],
        "low": found["speedup_low"],
        "high": found["speedup_high"],
    }
    return [whole, *found["speedup_by_shape"]]


def main() -> None:
    """Measure and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--shapes", default="1x32,1x128,8x64")
    parser.add_argument("--rounds", default="30")
    parser.add_argument("--starts", default="5")
    parser.add_argument("--busy", action="store_true")
    given = parser.parse_args()
    flags = ["--shapes", given.shapes, "--rounds", given.rounds, "--starts", given.starts]
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        if given.busy:
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(busy.kill)
        twin = Path(scratch, "twin")
        shutil.copytree(given.model, twin)
        runs = []
        for _ in range(given.runs):
            runs.append(speeds(given.model, twin, Path(scratch, "report"), flags))
            shown = "  ".join(
                f"{r['speedup']:.3f} ({r['low']:.3f}-{r['high']:.3f})" for r in runs[-1]
            )
            print(shown, flush=True)
    for name, column in zip(
        ["all", *given.shapes.split(",")], zip(*runs, strict=True), strict=True
    ):
        inside = sum(row["low"] <= 1 <= row["high"] for row in column)
        width = statistics.median(row["high"] - row["low"] for row in column)
        print(f"{name}: {inside} of {len(column)} intervals hold 1; median width {width:.3f}")


if __name__ == "__main__":
    main()
