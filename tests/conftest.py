"""Shared set-up: offline, quiet, `import tiny` works from every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny matrices gain nothing from threads, and parallel tests lose by them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line has it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))
# Its server has the libraries loaded, which a measured model's own process would load anew.
import processes  # noqa: F401

# Thousands of states would wait for the disk; what a machine that fails leaves is tested elsewhere,
# in processes of its own.
os.fsync = lambda descriptor: None


@pytest.fixture(autouse=True)
def one_thread():
    """What a benchmark in this process was allowed is not left to the tests that follow."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder with `base` (4 layers), `data`, and `teacher` fine-tuned by the command line."""
    import tiny
    from compressor.cli import run

    folder = tmp_path_factory.mktemp("workshop")
    tiny.checkpoint(folder / "base", num_hidden_layers=4)
    tiny.data(folder / "data", train=320, validation=64)
    words = f"finetune {folder}/base --data {folder}/data -o {folder}/teacher"
    assert run([*words.split(), *["--epochs", "6", "--batch-size", "16", "--lr", "4e-3"]]) == 0
    return folder
