"""Stages of a shell pipeline: one line passes from each to the next, and a failure stops all."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import faults
import processes
from processes import contents, linked, rare

NO_CHECKPOINT = "the stage before this one produced no checkpoint"
WHOLE = (
    "finetune base --data data --max-steps 4"
    " | distill - --data data --max-steps 4 --layers 2 --eval-steps 2"
    " | prune - --method magnitude"
    " | quantize -"
)


def bash(script: str, folder) -> tuple[subprocess.CompletedProcess, list[int]]:
    """Run a pipeline of `compressor` commands under pipefail; the result and each stage's code."""
    stages = " | ".join(f"compressor {stage.strip()}" for stage in script.split("|"))
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'set -o pipefail; compressor() {{ "{sys.executable}" -m compressor "$@"; }}; '
            f'{stages}; codes=("$?" "${{PIPESTATUS[@]}}"); echo "${{codes[@]}}" >codes',
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    whole, *each = map(int, (folder / "codes").read_text().split())
    (folder / "codes").unlink()
    assert whole == next((code for code in reversed(each) if code), 0)
    return done, each


@pytest.fixture
def here(workshop, tmp_path):
    return linked(tmp_path / "here", workshop, "base", "teacher", "data")


@pytest.mark.slow
@pytest.mark.parametrize("last", ["quantize -", "quantize - --json"])
def test_a_whole_pipeline_prints_one_line(last, here):
    done, codes = bash(WHOLE.replace("quantize -", last), here)
    assert codes == [0, 0, 0, 0], done.stderr
    assert len(done.stdout.splitlines()) == 1
    name = "base-finetune-distill-prune-quantize"
    found = json.loads(done.stdout)["output"] if "--json" in last else done.stdout.strip()
    assert found == name
    steps = json.loads((here / name / "compression.json").read_text())["steps"]
    assert [step["verb"] for step in steps] == ["finetune", "distill", "prune", "quantize"]
    assert steps[3]["command"].startswith("compressor quantize base-finetune-distill-prune")
    made = {name.rpartition("-")[2] for name in os.listdir(here)} - {"base", "teacher", "data"}
    assert made == {"finetune", "distill", "prune", "quantize"}
    assert not [name for name in os.listdir(here) if name.startswith(".")]


def test_the_first_stage_fails(here):
    before = contents(here)
    done, codes = bash(WHOLE.replace("finetune base", "finetune bsae"), here)
    assert codes == [3, 3, 3, 3]
    assert done.stdout == ""
    assert "bsae" in done.stderr
    assert done.stderr.count(NO_CHECKPOINT) == 3
    assert contents(here) == before


@pytest.mark.slow
def test_a_stage_with_a_usage_error_keeps_its_own_code(here):
    done, codes = bash(WHOLE.replace("finetune base", "finetune base --epochs x"), here)
    assert codes == [2, 3, 3, 3]
    assert done.stderr.count(NO_CHECKPOINT) == 3


def test_the_middle_stage_fails(here):
    """The stage before it has done its work, and its folder stays."""
    script = "quantize teacher --method static --data data | prune - --method gmp | quantize -"
    done, codes = bash(script, here)
    assert codes == [0, 3, 3], done.stderr
    assert done.stdout == ""
    assert done.stderr.count(NO_CHECKPOINT) == 1
    assert "quantize is the last step" in done.stderr
    assert sorted(os.listdir(here)) == ["base", "data", "teacher", "teacher-quantize"]
    # Nothing of what libraries say while they are imported reaches the screen.
    for line in done.stderr.splitlines():
        assert line.startswith(("error: ", "  try: ")) or processes.OURS.fullmatch(line), line


@pytest.mark.slow
def test_the_last_stage_fails(here):
    faults.made("int8", ours=True)(here)
    done, codes = bash("prune base --method magnitude | quantize - -o int8", here)
    assert codes == [0, 3], done.stderr
    assert done.stdout == ""
    assert "--force" in done.stderr
    assert NO_CHECKPOINT not in done.stderr
    assert os.listdir(here / "int8") == ["compression.json"]


def test_two_runs_to_one_target(here):
    """The second is refused and names the first, which then ends as if nothing had happened."""
    stopped = processes.At("compressor.train.loop._Loop._step", signal.SIGSTOP, 3)
    words = "finetune base --data data --max-steps 5 -o out"
    first = processes.start(words, here, at=stopped)
    lock = here / ".out.lock"
    for _ in range(3000):
        if (here / "out.state" / "run.json").exists():
            break
        time.sleep(0.01)
    try:
        second = subprocess.run(
            processes.command(*words.split(), "--force", "--resume"),
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        assert lock.exists()
    finally:
        for _ in range(100):  # it may not have stopped itself yet
            first.kill(signal.SIGCONT)
            if not first.process.is_alive():
                break
            time.sleep(0.1)
        done = first.wait()
    assert second.returncode == 3, second.stderr
    assert str(first.process.pid) in second.stderr
    assert second.stdout == ""
    assert done.code == 0, done.err
    assert sorted(os.listdir(here)) == ["base", "data", "out", "teacher"]


def unread(*words: str, folder, both: bool = False) -> tuple[int, str]:
    """Run with a stdout that nobody reads (stderr too with `both`); the code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        processes.command(*words),
        cwd=folder,
        stdout=writer,
        stderr=writer if both else subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    _, said = process.communicate(timeout=120)
    return process.returncode, said or ""


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "prune --help",
        "methods",
        rare("methods gmp --json"),
        "inspect base",
        rare("inspect base --json"),
        rare("inspect base --tensors"),
    ],
)
def test_a_reader_that_left_early_ends_it_quietly(words, here):
    assert unread(*words.split(), folder=here) == (141, "")


def test_readers_of_both_streams_that_left(here):
    assert unread("inspect", "nowhere", folder=here, both=True)[0] == 141


@pytest.mark.slow
def test_the_folder_is_whole_though_nobody_reads_its_name(here):
    code, said = unread("prune", "base", "--method", "magnitude", "-o", "out", folder=here)
    assert (code, said) == (141, "")
    assert processes.run("inspect out", here).code == 0
    assert sorted(os.listdir(here)) == ["base", "data", "out", "teacher"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_were_never_open(closed, here):
    script = f"'{sys.executable}' -m compressor inspect base {closed}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_rows_by_pipe_for_classes_that_the_head_does_not_have(here):
    """They are needed twice: to see that they are other classes, and then to train on."""
    rows = "".join(f'{{"text": "film {i}", "label": "{"abc"[i % 3]}"}}\n' for i in range(9))
    words = "finetune teacher --data - --dry-run -o out"
    done = subprocess.run(
        processes.command(*words.split()),
        cwd=here,
        input=rows,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3 classes in label (a, b, c)" in done.stderr
