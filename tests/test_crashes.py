"""Killed, interrupted, resumed: what stays on disk, and that the end is the same to the bit."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

import processes
import tiny
from processes import At, contents, linked, rare

TRAINING = "--data data --epochs 2 --batch-size 8 --lr 1e-3 --save-steps 3 --eval-steps 6 -o out"
COMMANDS = {
    "distill": f"distill teacher --layers 2 {TRAINING}",
    "gmp": f"prune teacher --method gmp --sparsity 0.8 --teacher teacher {TRAINING}",
}
# Every place where a run has something to lose, and how many calls of it come first.
PLACES = {
    "tokens": ("compressor.data.encode.encode", 2),
    "teacher": ("compressor.train.teacher.Teacher._answers", 3),
    "step": ("compressor.train.loop._Loop._step", 12),
    "evaluation": ("compressor.train.evaluate.fed", 4),
    "state": ("compressor.train.state.write_json", 4),
    "end": ("compressor.train.loop._Loop._finish", 1),
    "save": ("compressor.model.save.save_model", 1),
    "record": ("compressor.commands.job.write_lineage", 1),
}


@pytest.fixture(scope="module")
def inputs(workshop, tmp_path_factory):
    """A folder with `teacher`, and `data` for 24 short steps."""
    folder = linked(tmp_path_factory.mktemp("inputs") / "inputs", workshop, "teacher")
    tiny.data(folder / "data", train=96, validation=32)
    return folder


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The uninterrupted runs: hash of every file, and seconds, by name of the command."""
    found = {}
    for name, words in COMMANDS.items():
        folder = linked(tmp_path_factory.mktemp("whole") / name, inputs, "teacher", "data")
        done = processes.run(words, folder)
        assert done.code == 0, done.err
        assert sorted(os.listdir(folder)) == ["data", "out", "teacher"]
        found[name] = contents(folder / "out"), done.seconds
    return found


@pytest.fixture
def here(inputs, tmp_path):
    """A fresh folder with links to the inputs, whose bytes must stay as they are."""
    before = [contents(inputs / name) for name in ("teacher", "data")]
    yield linked(tmp_path / "here", inputs, "teacher", "data")
    assert [contents(inputs / name) for name in ("teacher", "data")] == before


def whole_or_absent(folder: Path, wanted: dict[str, str]) -> bool:
    """Whether the output is there; if so, it is whole."""
    if not (folder / "out").exists():
        return False
    assert contents(folder / "out") == wanted
    return True


def go_on(folder: Path, words: str, wanted: dict[str, str]) -> None:
    """The same command with --resume ends in the same bytes and leaves nothing else."""
    done = processes.run(f"{words} --resume", folder)
    assert done.code == 0, done.err
    assert done.out == "out\n"
    assert contents(folder / "out") == wanted
    assert sorted(os.listdir(folder)) == ["data", "out", "teacher"]


def killed_at_random(folder: Path, words: str, whole, draw: random.Random, share: range) -> None:
    """Kill a run, and perhaps its continuation, at a moment in one part of its time."""
    wanted, seconds = whole
    running = processes.start(words, folder)
    time.sleep(seconds * draw.uniform(share.start, share.stop) / 100)
    running.kill(signal.SIGKILL)
    running.wait()
    if draw.random() < 0.3 and not whole_or_absent(folder, wanted):
        again = processes.start(f"{words} --resume", folder)
        time.sleep(seconds * draw.random())
        again.kill(signal.SIGKILL)
        again.wait()
    if not whole_or_absent(folder, wanted):
        go_on(folder, words, wanted)


@pytest.mark.parametrize(("name", "part"), [("distill", 0), ("distill", 1), ("gmp", 2)])
def test_killed_at_any_moment_it_resumes_to_the_same_bytes(name, part, here, whole):
    draw = random.Random(f"{name} {part}")
    share = range(33 * part, 33 * (part + 1))
    killed_at_random(here, COMMANDS[name], whole[name], draw, share)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_fifty_times_at_random(name, seed, here, whole):
    draw = random.Random(f"{name} {seed}")
    killed_at_random(here, COMMANDS[name], whole[name], draw, range(110))


@pytest.mark.parametrize(
    ("place", "call"),
    [
        rare("compressor.train.state.write_json", 1),  # binding the state to its options
        rare("compressor.train.state.StateFolder.save", 3),
        ("compressor.checkpoint.store._sync", 20),  # some file of some state
        rare("compressor.checkpoint.store._rename", 4),
        rare("compressor.train.state._remove", 1),  # the oldest state
        rare("compressor.commands.job.write_json", 1),  # the very end of the output
        rare("compressor.train.state.StateFolder.remove", 2),  # the output stands already
    ],
)
def test_killed_at_a_delicate_moment(place, call, here, whole):
    words, (wanted, _) = COMMANDS["distill"], whole["distill"]
    done = processes.run(words, here, at=At(place, signal.SIGKILL, call))
    assert done.code == -signal.SIGKILL
    if not whole_or_absent(here, wanted):
        go_on(here, words, wanted)
    else:
        assert call == 2
        assert "--force" in processes.run(f"{words} --resume", here).err


def check_stopped(folder: Path, done: processes.Done, number: int) -> None:
    assert done.code == 128 + number, done.err
    assert done.seconds < 10
    assert done.out == ""
    assert "Traceback" not in done.err
    assert f"stopped by {signal.Signals(number).name}" in done.err
    assert "--resume" in done.err
    assert not [name for name in os.listdir(folder) if name == "out" or name.startswith(".")]


@pytest.mark.parametrize(
    "place",
    [place if place in ("teacher", "save") else rare(place) for place in PLACES],
)
def test_stopped_by_sigterm_it_says_how_to_go_on_and_does(place, here, whole):
    words, (wanted, _) = COMMANDS["distill"], whole["distill"]
    function, call = PLACES[place]
    done = processes.run(words, here, at=At(function, signal.SIGTERM, call))
    check_stopped(here, done, signal.SIGTERM)
    steps = sorted(folder.name for folder in (here / "out.state").glob("step-*"))
    if place in ("end", "save", "record"):  # nothing of the training is lost any more
        assert "step-24" in steps
    if place == "step":
        assert steps == ["step-11", "step-9"]
    go_on(here, words, wanted)


@pytest.mark.parametrize("place", [rare("teacher"), rare("step"), "save"])
def test_stopped_by_ctrl_c(place, here, whole):
    words, (wanted, _) = COMMANDS["gmp"], whole["gmp"]
    function, call = PLACES[place]
    done = processes.run(words, here, at=At(function, signal.SIGINT, call))
    check_stopped(here, done, signal.SIGINT)
    go_on(here, words, wanted)


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once(here, whole):
    words, (wanted, _) = COMMANDS["distill"], whole["distill"]
    function, call = PLACES["step"]
    done = processes.run(words, here, at=At(function, signal.SIGINT, call, times=2))
    assert done.code == -signal.SIGINT
    go_on(here, words, wanted)


def test_stopped_while_it_quantizes_nothing_is_left(here):
    place = At("compressor.commands.job.write_lineage", signal.SIGTERM)
    done = processes.run("quantize teacher -o out", here, at=place)
    check_stopped(here, done, signal.SIGTERM)
    assert sorted(os.listdir(here)) == ["data", "teacher"]


def test_a_real_process_stops_and_goes_on(here, whole):
    """Once without any help from the tests: a new interpreter and a signal from outside."""
    words, (wanted, _) = COMMANDS["distill"], whole["distill"]
    process = subprocess.Popen(
        processes.command(*words.split()),
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(3000):
        if list(here.glob("out.state/step-*")) or process.poll() is not None:
            break
        time.sleep(0.01)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    done = processes.Done(process.returncode, out, err, time.monotonic() - asked)
    check_stopped(here, done, signal.SIGTERM)
    go_on(here, words, wanted)


def test_an_unfinished_run_is_neither_lost_nor_mixed_with_another(here, whole):
    words, (wanted, _) = COMMANDS["distill"], whole["distill"]
    function, call = PLACES["step"]
    processes.run(words, here, at=At(function, signal.SIGTERM, call))
    before = contents(here / "out.state")

    plain = processes.run(words, here)
    assert plain.code == 3
    assert "--resume" in plain.err
    assert "--force" in plain.err
    other = processes.run(f"{words} --resume --lr 2e-3 --seed 7 --temperature 3", here)
    assert other.code == 3
    for changed in ("learning_rate: 0.001 -> 0.002", "seed: 42 -> 7", "temperature: 2.0 -> 3.0"):
        assert changed in other.err
    assert "batch_size" not in other.err  # what is the same is not said
    assert contents(here / "out.state") == before
    go_on(here, words, wanted)


@pytest.mark.slow
def test_a_training_starts_over_with_force(here, whole):
    words, (wanted, _) = COMMANDS["distill"], whole["distill"]
    function, call = PLACES["step"]
    processes.run(f"{words} --lr 2e-3", here, at=At(function, signal.SIGTERM, call))
    done = processes.run(f"{words} --force", here)
    assert done.code == 0, done.err
    assert contents(here / "out") == wanted


class Counted:
    """The passes of a training, and what happens before some of them."""

    def __init__(self):
        self.passes = 0
        self.before_pass = {}


@pytest.fixture
def sharp(inputs, tmp_path, monkeypatch):
    """SAM takes two passes a step, the second at weights that must not be kept."""
    from compressor.train.passes import Passes

    counted, plain = Counted(), Passes._backward  # what the first and the second pass share

    def backward(passes, loss_of):
        counted.passes += 1
        counted.before_pass.get(counted.passes, lambda: None)()
        return plain(passes, loss_of)

    monkeypatch.setattr(Passes, "_backward", backward)
    monkeypatch.chdir(linked(tmp_path / "here", inputs, "teacher", "data"))
    return counted


SHARP = "prune teacher --data data --epochs 1 --batch-size 8 --with sam".split()


@pytest.mark.parametrize("stopped_pass", [7, 8])  # the first and the second of the fourth step
def test_a_step_of_two_passes_resumes_to_the_same_bytes(sharp, stopped_pass):
    from compressor.cli import run

    assert run([*SHARP, "-o", "whole"]) == 0
    sharp.passes = 0
    sharp.before_pass = {stopped_pass: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    assert run([*SHARP, "-o", "out"]) == 143
    assert sharp.passes == stopped_pass
    sharp.before_pass = {}
    assert run([*SHARP, "-o", "out", "--resume"]) == 0
    wanted, found = (contents(Path(name)) for name in ("whole", "out"))
    assert found["model.safetensors"] == wanted["model.safetensors"]


def test_a_second_pass_that_diverges_keeps_the_weights_before_it(sharp, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from compressor.cli import run
    from compressor.methods.contract import Loss
    from compressor.methods.objectives import task

    plain = task.Objective.loss

    def exploding(self, batch, student, teacher):
        loss = plain(self, batch, student, teacher)
        return Loss(loss.total * (float("nan") if sharp.passes == 8 else 1.0), loss.parts)

    monkeypatch.setattr(task.Objective, "loss", exploding)
    assert run([*SHARP, "-o", "out"]) == 5
    saved = load_file("out.state/step-3/model.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values())
    assert not Path("out").exists()
