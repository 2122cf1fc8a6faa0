"""The same command on two processes, as `accelerate launch` starts it."""

import json
import subprocess
import sys

import pytest
import transformers


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["finetune base", "distill teacher --layers 2"])
def test_two_processes_share_the_rows_and_one_of_them_writes(workshop, tmp_path, verb):
    for name in ("base", "teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    launch = "accelerate.commands.launch --num_processes 2 --multi_gpu --main_process_port 0"
    words = f"-m {launch} -m compressor {verb} --data data --epochs 1 --batch-size 16"
    done = subprocess.run(
        [sys.executable, *words.split(), "--device", "cpu", "-o", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out\n"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["steps"] == 320 / 16 / 2
    transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
