"""What the tests of `benchmark` say and read."""

import json
from pathlib import Path

from compressor.cli import run

QUICK = ["--shapes", "1x8,2x16", "--rounds", "3", "--starts", "1"]


def go(*words) -> int:
    """Run one command line; returns the exit code."""
    return run([str(word) for word in words])


def report_of(folder: Path) -> dict:
    """The report in a folder."""
    return json.loads((folder / "report.json").read_text())
