"""Every fault of `faults.py`: one message, the right code, nothing lost and nothing made.

The faults that are found before torch is loaded run in one interpreter, one after the other, which
also shows that none of them loads it. Each of the others has a process of its own.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import faults
import processes
from faults import FAULTS, Fault

EARLY = [fault for fault in FAULTS if not fault.needs_torch]
LATE = [fault for fault in FAULTS if fault.needs_torch]
# Runs command lines from a list in one process: the folder, the words and stdin of each.
DRIVER = """
import contextlib, io, json, os, sys, time
from compressor.cli import run

results = []
for case in json.load(open(sys.argv[1])):
    os.chdir(case["folder"])
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(bytes.fromhex(case["stdin"])))
    started, had_torch = time.process_time(), "torch" in sys.modules
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(case["words"].split())
        except SystemExit as end:
            code = f"exit {end.code}"
    results.append({
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "seconds": time.process_time() - started,
        "torch": "torch" in sys.modules and not had_torch,
    })
json.dump(results, open(sys.argv[2], "w"))
"""


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder: hash of each file, target of each link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def folder_of(place: Path, fault: Fault) -> Path:
    return place / re.sub(r"\W+", "-", fault.name)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """What the early faults came to, by name: result, and the folder before and after."""
    place = tmp_path_factory.mktemp("early")
    cases = []
    before = {}
    for fault in EARLY:
        folder = folder_of(place, fault)
        folder.mkdir()
        faults.lay_out(folder)
        fault.breaks(folder)
        before[fault.name] = snapshot(folder)
        cases.append({"folder": str(folder), "words": fault.words, "stdin": fault.stdin.hex()})
    (place / "cases.json").write_text(json.dumps(cases))
    subprocess.run(
        [sys.executable, "-c", DRIVER, place / "cases.json", place / "results.json"],
        check=True,
        timeout=120,
    )
    results = json.loads((place / "results.json").read_text())
    return {
        fault.name: (result, before[fault.name], snapshot(folder_of(place, fault)))
        for fault, result in zip(EARLY, results, strict=True)
    }


def check(fault: Fault, code: object, out: str, err: str) -> None:
    assert "Traceback" not in err
    assert code == fault.code, err
    assert out == ""
    assert err.count("error: ") == 1
    for words in fault.said:
        assert words.casefold() in err.casefold()
    assert "\x1b" not in err


def test_the_names_of_the_faults_differ():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    numbers = {int(fault.name.split()[0]) for fault in FAULTS}
    # 21 needs another user, 30 and 34 are no refusals, 44 a full disk: see below and test_streams.
    assert numbers | {21, 30, 34} >= set(range(1, 40)) | {45, 46, 47}


@pytest.mark.parametrize("fault", EARLY, ids=lambda fault: fault.name)
def test_refused_before_torch_is_loaded(fault, early):
    result, before, after = early[fault.name]
    check(fault, result["code"], result["out"], result["err"])
    assert after == before
    assert not result["torch"]
    assert result["seconds"] < 2


@pytest.mark.parametrize("fault", LATE, ids=lambda fault: fault.name)
def test_refused_when_the_model_is_loaded(fault, workshop, tmp_path):
    if "--device cuda" in fault.words:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    folder = tmp_path / "case"
    shutil.copytree(workshop / "teacher", folder / "model")
    (folder / "model" / "compression.json").unlink()  # as another tool's checkpoint
    shutil.copytree(workshop / "data", folder / "data")
    fault.breaks(folder)
    before = snapshot(folder)
    done = processes.run(fault.words, folder)
    check(fault, done.code, done.out, done.err)
    assert snapshot(folder) == before


def fresh(*words: str, cwd: Path) -> tuple[subprocess.CompletedProcess, float]:
    """Run words in a new interpreter that lists its modules; the result and its CPU seconds."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write('TORCH' * ('torch' in sys.modules)))\n"
        "from compressor.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


@pytest.mark.parametrize(
    ("words", "code", "budget"),
    [
        ("--help", 0, 0.3),
        ("--version", 0, 0.3),
        ("prune --method gmp --help", 0, 0.6),
        ("methods", 0, 0.6),
        ("inspect model", 0, 0.45),
        ("prune modle --method magnitude", 3, 0.3),
        ("finetune model --data dada", 3, 0.45),
    ],
)
def test_answers_at_once_and_without_torch(words, code, budget, tmp_path):
    """The budget is CPU time, the least of up to five tries: wall time would measure the machine.

    It is tripled, because the same work takes longer on a processor that others use too.
    """
    faults.lay_out(tmp_path)
    seconds = []
    while not seconds or (min(seconds) > 3 * budget and len(seconds) < 5):
        done, spent = fresh(*words.split(), cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert "TORCH" not in done.stderr
        seconds.append(spent)
    assert min(seconds) <= 3 * budget


def unprivileged() -> list[str]:
    """A prefix under which permissions count, which root otherwise ignores."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root ignores permissions, and there is no setpriv to give that up")
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize(
    ("name", "mode", "words", "said"),
    [
        ("model/model.safetensors", 0o000, "prune model --method magnitude -o out", "mode 0000"),
        ("model", 0o000, "prune model --method magnitude -o out", "mode 0000"),
        ("data/train.jsonl", 0o000, "finetune model --data data -o out", "mode 0000"),
        (".", 0o555, "prune model --method magnitude -o out", "mode 0555"),
    ],
)
def test_missing_permissions_are_the_machines_fault(name, mode, words, said, tmp_path):
    faults.lay_out(tmp_path)
    path = tmp_path / name
    usual = path.stat().st_mode
    path.chmod(mode)
    try:
        done = subprocess.run(
            [*unprivileged(), *processes.command(*words.split())],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        path.chmod(usual)
    assert done.returncode == 6, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert "owner" in done.stderr


def test_what_is_accepted_though_it_looks_odd(workshop, tmp_path):
    """Byte order mark, CRLF, an empty text, one class without validation rows, harmless tensors."""
    folder = tmp_path / "case"
    shutil.copytree(workshop / "base", folder / "model")
    faults.tensors(
        bert__embeddings__position_ids=faults.np.arange(66, dtype=faults.np.int64)[None]
    )(folder)
    (folder / "data").mkdir()
    lines = ["text,label", ",positive", "a great film,positive", "a bad film,negative"]
    (folder / "data" / "train.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (folder / "data" / "validation.csv").write_text("text,label\ngood,positive\nfine,positive\n")
    done = processes.run("finetune model --data data --epochs 1 -o out", folder)
    assert done.code == 0, done.err
    assert "1 of 3 rows have an empty text and are kept (lines 2)" in done.err
    assert "negative" in next(line for line in done.err.splitlines() if "no validation" in line)


def test_a_library_that_is_missing_is_named_with_its_pip_line(tmp_path):
    code = "import sys; sys.modules['yaml'] = None; import compressor.cli as c; c.main()"
    faults.recipe("steps: []")(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "recipe.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6
    assert "pip install PyYAML" in done.stderr


def test_out_of_memory_is_the_machines_fault(workshop, tmp_path, monkeypatch, capsys):
    import torch

    from compressor.cli import run
    from compressor.train.loop import _Loop

    monkeypatch.setattr(_Loop, "_step", lambda self, step: torch.empty(2**60))
    monkeypatch.chdir(processes.linked(tmp_path / "here", workshop, "base", "data"))
    assert run(["finetune", "base", "--data", "data", "-o", "out"]) == 6
    said = capsys.readouterr().err
    assert "out of memory" in said
    assert str(4 * 2**60) in said
    assert "--batch-size" in said
