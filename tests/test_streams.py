"""What goes to which stream, in colour or not, and what a full disk leaves."""

import errno
import json
import os
import pty
import re
import resource
import signal
import subprocess
import threading

import numpy as np
import pytest

import faults
import processes
import tiny
from compressor.errors import MachineError
from processes import contents, linked, rare

ESCAPE = "\x1b["
TRAINING = "distill teacher --layers 2 --data data --epochs 1 --batch-size 8 --save-steps 3 -o out"


@pytest.fixture(scope="module")
def inputs(workshop, tmp_path_factory):
    folder = linked(tmp_path_factory.mktemp("inputs") / "inputs", workshop, "teacher", "base")
    tiny.data(folder / "data", train=64, validation=32)
    return folder


@pytest.fixture
def here(inputs, tmp_path):
    return linked(tmp_path / "here", inputs, "teacher", "base", "data")


class Terminal:
    """A pseudo-terminal and what was written to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.path = os.ttyname(self.theirs)
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self.ours, 4096)
            except OSError as problem:  # the last writer has gone
                if problem.errno != errno.EIO:
                    raise
                return
            if not piece:
                return
            self._pieces.append(piece)

    def close(self) -> str:
        """The text; call it when the writers have ended."""
        os.close(self.theirs)
        self._reader.join(10)
        os.close(self.ours)
        return b"".join(self._pieces).decode()


def on_terminal(words: str, folder, **environment: str) -> str:
    """What a new interpreter writes to a terminal that is its stdout and stderr."""
    terminal = Terminal()
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        if name not in environment:
            settings.pop(name, None)
    subprocess.run(
        processes.command(*words.split()),
        cwd=folder,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        check=False,
        timeout=60,
    )
    return terminal.close()


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_on_a_terminal(environment, coloured, here):
    said = on_terminal("inspect nowhere", here, **environment)
    assert "error: nowhere does not exist" in re.sub(r"\x1b\[[\d;]*m", "", said)
    assert (ESCAPE in said) == coloured


def test_no_colour_reaches_tables_and_help(here):
    for words in ("inspect base", "--help", "methods"):
        assert "\x1b" not in on_terminal(words, here, NO_COLOR="1")


@pytest.mark.parametrize(("forced", "coloured"), [("", False), ("1", True)])
def test_colour_in_a_log(forced, coloured, here):
    done = subprocess.run(
        processes.command("inspect", "nowhere"),
        cwd=here,
        env={**os.environ, "FORCE_COLOR": forced, "NO_COLOR": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert (ESCAPE in done.stderr) == coloured


def test_stdin_that_is_a_terminal_is_not_waited_for(here):
    terminal = Terminal()
    done = subprocess.run(
        processes.command("inspect", "-"),
        cwd=here,
        stdin=terminal.theirs,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    terminal.close()
    assert done.returncode == 2
    assert "stdin, which is a terminal" in done.stderr


@pytest.mark.parametrize(
    ("environment", "bars"),
    [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False), rare({"TERM": "dumb"}, False)],
)
def test_progress_on_a_terminal(environment, bars, here):
    terminal = Terminal()
    running = processes.start(
        f"{TRAINING} --epochs 4",
        here,
        terminal=terminal.path,
        environment={"NO_COLOR": "", "FORCE_COLOR": "", "TERM": "xterm", **environment},
    )
    running.process.join(60)
    said = terminal.close().replace("\r\n", "\n")
    assert running.process.exitcode == 0, said
    assert ("\r" in said) == bars
    assert ("\x1b[2K" in said) == bars
    assert ("━" in said) == bars
    assert "out\n" in said


def test_a_log_with_forced_colour_has_no_bars(here):
    done = processes.run(TRAINING, here, environment={"FORCE_COLOR": "1", "NO_COLOR": ""})
    assert done.code == 0
    assert "\r" not in done.err
    assert "\x1b[2K" not in done.err


def test_quiet_leaves_only_errors(here):
    done = processes.run(f"{TRAINING} --quiet", here)
    assert (done.code, done.out, done.err) == (0, "out\n", "")
    again = processes.run(f"{TRAINING} --quiet", here)
    assert (again.code, again.out) == (3, "")
    assert again.err.startswith("error: the output out already exists")


def test_json_is_one_object_on_stdout_and_no_bar(here):
    done = processes.run(f"{TRAINING} --json", here)
    assert done.code == 0
    found = json.loads(done.out)
    assert found["output"] == "out"
    assert 0 <= found["metrics"]["accuracy"] <= 1
    assert len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        ("inspect nowhere --json", 3, "input"),
        ("prune base --method magnitud --json", 2, "usage"),
        ("prune base --json --sparsity 2", 2, "usage"),
        ("prune pkg:not_there/model --method magnitude --json", 6, "machine"),
        ("run nothing --json", 3, "input"),
    ],
)
def test_errors_as_json(words, code, kind, here):
    done = processes.run(words, here)
    assert done.code == code
    assert done.out == ""
    error = json.loads(done.err)["error"]
    assert list(error) == ["code", "kind", "message", "hint", "where"]
    assert (error["code"], error["kind"]) == (code, kind)
    assert error["message"]


def test_an_interruption_as_json(here):
    stop = processes.At("compressor.train.loop._Loop._step", signal.SIGTERM, 3)
    done = processes.run(f"{TRAINING} --json --quiet", here, at=stop)
    assert (done.code, done.out) == (143, "")
    error = json.loads(done.err)["error"]
    assert (error["code"], error["kind"]) == (143, "interrupted")
    assert "--resume" in error["hint"]


@pytest.mark.parametrize(
    "words",
    [
        rare("finetune base --data data --max-steps 2 -o out"),
        TRAINING,
        "prune teacher --method magnitude --data data -o out",
        rare("prune teacher --method layer_drop -o out"),
        "quantize teacher -o out",
    ],
)
def test_stderr_holds_only_our_own_lines(words, here):
    done = processes.run(words, here)
    assert done.code == 0
    assert done.out == "out\n"
    for line in done.err.splitlines():
        assert processes.OURS.fullmatch(line), line


@pytest.mark.slow
def test_stderr_of_a_new_interpreter_holds_only_our_own_lines(here):
    """Once with everything that libraries say while they are imported."""
    words = "quantize teacher --method static --data data -o out"
    done = subprocess.run(
        processes.command(*words.split()), cwd=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out\n"
    for line in done.stderr.splitlines():
        assert processes.OURS.fullmatch(line), line


def check_full(done: processes.Done) -> None:
    assert done.code == 6, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "too large" in done.err or "disk is full" in done.err


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("prune teacher --method magnitude -o out", 2_000),
        rare("prune teacher --method magnitude -o out", 20_000),
        rare("quantize teacher -o out", 2_000),
        ("quantize teacher -o out", 20_000),
    ],
)
def test_a_full_disk_leaves_nothing_half_made(words, limit, here):
    """Files cannot grow beyond a limit, which is how a full disk looks to whoever writes."""
    done = processes.run(words, here, file_limit=limit)
    check_full(done)
    assert sorted(os.listdir(here)) == ["base", "data", "teacher"]


@pytest.mark.parametrize("limit", [1_500, rare(5_000), 50_000])
def test_a_full_disk_in_training_leaves_a_run_to_go_on_with(limit, here, inputs):
    """Too large are the tokens, then the first state, then the result of it all."""
    check_full(processes.run(TRAINING, here, file_limit=limit))
    left = sorted(os.listdir(here))
    assert left in (["base", "data", "out.state", "teacher"], ["base", "data", "teacher"])
    assert not [path for path in here.rglob("*") if "partial" in path.name]
    done = processes.run(f"{TRAINING} --resume", here)
    assert done.code == 0, done.err
    assert sorted(os.listdir(here)) == ["base", "data", "out", "teacher"]


def test_a_full_disk_leaves_the_states_before_it_intact(here, inputs, tmp_path):
    other = linked(tmp_path / "whole", inputs, "teacher", "data")
    assert processes.run(TRAINING, other).code == 0

    stop = processes.At("compressor.train.loop._Loop._step", signal.SIGTERM, 6)
    assert processes.run(TRAINING, here, at=stop).code == 143
    states = {name: contents(here / "out.state" / name) for name in ("step-3", "step-5")}
    check_full(processes.run(f"{TRAINING} --resume", here, file_limit=50_000))
    for name, wanted in states.items():
        assert contents(here / "out.state" / name) == wanted
    assert not (here / "out").exists()
    assert processes.run(f"{TRAINING} --resume", here).code == 0
    assert contents(here / "out") == contents(other / "out")


def test_a_full_disk_does_not_cut_the_teachers_answers(tmp_path):
    """The disk is full at their last few bytes, which a buffer may swallow."""
    from compressor.data.distinct import Distinct
    from compressor.train import fill

    rows = Distinct(np.arange(3), np.arange(3), "")
    answers, ends = {"logits": np.ones((3, 2), dtype=np.float32)}, {"logits": np.arange(4)}
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (140, usual[1]))  # the header has 128 bytes
    try:
        with pytest.raises(MachineError, match="File too large"):
            fill.fill(tmp_path, answers, rows, ends, lambda rows: answers, lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not (tmp_path / "logits.npy").exists()


def test_an_output_that_is_replaced_survives_a_full_disk(here):
    words = "prune teacher --method magnitude -o out"
    assert processes.run(words, here).code == 0
    before = contents(here / "out")
    check_full(processes.run(f"{words} --force --sparsity 0.7", here, file_limit=60_000))
    assert contents(here / "out") == before
    assert sorted(os.listdir(here)) == ["base", "data", "out", "teacher"]


def test_a_log_on_a_full_disk_still_ends_with_the_right_code(here):
    """Even the message has no room there."""
    assert processes.run("inspect nowhere", here, file_limit=10).code == 6


def test_no_parent_folder_that_could_be_written(here):
    """The permission cases are in test_faults; here the place is no folder at all."""
    faults.file("file", b"x", to=".")(here)
    done = processes.run("prune teacher --method magnitude -o file/out", here)
    assert done.code == 3
    assert "no folder file" in done.err
