"""The same command on two processes, as `accelerate launch` starts it."""

import json
import subprocess
import sys

import pytest
import transformers

from compressor.cli import run


def launched(words, folder):
    """Run a training on two processes, and check what it says."""
    launch = "accelerate.commands.launch --num_processes 2 --multi_gpu --main_process_port 0"
    words = f"-m {launch} -m compressor {words} --data data --epochs 1 --batch-size 16"
    done = subprocess.run(
        [sys.executable, *words.split(), "--device", "cpu", "-o", "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out\n"
    assert json.loads((folder / "out" / "run.json").read_text())["steps"] == 320 / 16 / 2
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder / "out")


@pytest.fixture
def here(workshop, tmp_path):
    for name in ("base", "teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("words", ["finetune base", "distill teacher --layers 2"])
def test_two_processes_share_the_rows_and_one_of_them_writes(here, words):
    launched(words, here)


@pytest.mark.slow
@pytest.mark.parametrize("ascent", ["sam", "delta_sam"])
def test_modifiers_on_two_processes(here, ascent):
    assert (
        run(f"prune {here}/teacher --method magnitude --sparsity 0.5 -o {here}/sparse".split()) == 0
    )
    flags = f"--with lock_sparsity --with {ascent} --with swad --with hype --hype-sigma 0.01"
    found = launched(f"finetune sparse {flags} --precision fp32 --eval-steps 2", here)
    step = json.loads((here / "out/compression.json").read_text())["steps"][-1]["metrics"]
    assert step["swad_averaged"] >= 2
    weight = found.bert.encoder.layer[0].output.dense.weight
    assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
