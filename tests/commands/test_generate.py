"""`generate`: the folder that it writes, what it refuses, and that a stopped run goes on."""

import json
import os
import signal
from pathlib import Path

import pytest

import processes
import tiny
from compressor.cli import run
from compressor.data.dataset import open_dataset
from processes import At, contents, linked

WORDS = "generate mlm --data data -o out"
KEPT = "compressor.train.kept.KeptFile.append"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A masked language model, a classifier, and rows for three blocks."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.checkpoint(folder / "mlm", head="AutoModelForMaskedLM", labels=None)
    tiny.checkpoint(folder / "model")
    tiny.data(folder / "data", train=300, validation=20)
    return folder


@pytest.fixture
def here(inputs, tmp_path, monkeypatch):
    folder = linked(tmp_path / "here", inputs, "mlm", "model", "data")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The files of an undisturbed run."""
    folder = linked(tmp_path_factory.mktemp("whole") / "here", inputs, "mlm", "data")
    done = processes.run(WORDS, folder)
    assert (done.code, done.out) == (0, "out\n"), done.err
    return contents(folder / "out")


def go(*words):
    return run([str(word) for word in words])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(folder: Path, **splits: list[dict]) -> None:
    folder.mkdir()
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)


def test_the_folder_holds_old_and_new_rows_and_says_how_they_were_made(here, capsys):
    assert go(*WORDS.split(), "--copies", 4) == 0
    captured = capsys.readouterr()
    assert captured.out == "out\n"
    assert "rows/s" in captured.err

    old, found = lines(Path("data/train.jsonl")), lines(Path("out/train.jsonl"))
    assert found[: len(old)] == old
    new = found[len(old) :]
    assert 300 < len(new) <= 1200
    assert all(set(row) == {"text", "label"} for row in new)
    assert lines(Path("out/validation.jsonl")) == lines(Path("data/validation.jsonl"))
    names = ["generation.json", "run.json", "train.jsonl", "validation.jsonl"]
    assert sorted(os.listdir("out")) == names

    record = json.loads(Path("out/generation.json").read_text())
    (step,) = record["steps"]
    assert (step["verb"], step["method"], step["seed"]) == ("generate", "tinybert_augment", 42)
    assert step["options"] == {"p": 0.4, "copies": 4, "top_k": 15, "word_vectors": ""}
    assert step["metrics"] == {"original": 300, "validation": 20, "generated": len(new)}
    assert step["inputs"]["data"]["rows"] == open_dataset("data").hash
    assert set(record["files"]) == {"train.jsonl", "validation.jsonl"}
    assert str(here) not in Path("out/generation.json").read_text()


def test_every_verb_reads_the_folder_as_data(here, capsys):
    assert go(*WORDS.split(), "--copies", 2) == 0
    assert go("finetune", "model", "--data", "out", "-o", "tuned", "--dry-run") == 0
    training = ["--max-steps", 1, "--data", "out", "-o"]
    assert go("finetune", "model", *training, "tuned") == 0
    steps = json.loads(Path("tuned/compression.json").read_text())["steps"]
    assert steps[-1]["inputs"]["data"] == {"name": "out", "rows": open_dataset("out").hash}
    assert go("generate", "mlm", "--data", "out", "--copies", 1, "-o", "more") == 0
    assert len(lines(Path("more/train.jsonl"))) > len(lines(Path("out/train.jsonl")))


CASES = {
    "pair": [
        {"id": 1, "premise": "great food", "hypothesis": "slow service", "label": "no"},
        {"id": 2, "premise": "dull film", "hypothesis": "boring plot", "label": "yes"},
    ],
    "classes by number": [
        {"sentence": "great food", "label": 1},
        {"sentence": "slow service", "label": 0},
    ],
    "scores": [{"text": "great food", "score": 4.5}, {"text": "slow service", "score": 2.0}],
}


@pytest.mark.parametrize("case", CASES)
def test_columns_and_kinds_of_labels_stay(case, here):
    rows = CASES[case]
    write(Path("d"), train=rows, test=rows)
    assert go("generate", "mlm", "--data", "d", "-o", "out") == 0
    before, after = open_dataset("d"), open_dataset("out")
    for name in ("task", "text_columns", "label_column", "labels"):
        assert getattr(before, name) == getattr(after, name)
    columns = [*before.text_columns, before.label_column]
    wanted = [{name: row[name] for name in columns} for row in rows]
    assert lines(Path("out/test.jsonl")) == wanted
    found = lines(Path("out/train.jsonl"))
    assert found[:2] == wanted
    by_label = {row[before.label_column]: row for row in wanted}
    assert len(found) > 10
    for row in found[2:]:
        original = by_label[row[before.label_column]]
        changed = [name for name in before.text_columns if row[name] != original[name]]
        assert len(changed) == 1
        assert type(row[before.label_column]) is type(original[before.label_column])


def test_texts_without_labels(here):
    (here / "d").mkdir()
    (here / "d" / "train.txt").write_text("great food\nslow service\n")
    assert go("generate", "mlm", "--data", "d", "--task", "masked-lm", "-o", "out") == 0
    found = lines(Path("out/train.jsonl"))
    assert found[:2] == [{"text": "great food"}, {"text": "slow service"}]
    assert len(found) > 10


def test_nothing_new_is_said(here, capsys):
    assert go(*WORDS.split(), "--p", 0) == 0
    assert "warning: no new row was made" in capsys.readouterr().err
    assert lines(Path("out/train.jsonl")) == lines(Path("data/train.jsonl"))


def test_word_vectors_are_recorded_by_name_and_content(here):
    write(Path("d"), train=[{"text": "plots", "label": "a"}, {"text": "works", "label": "b"}])
    Path("glove.txt").write_text("plots 1 0\nstories 0.9 0.1\nbanana 0 1\n")
    words = ["generate", "mlm", "--data", "d", "--word-vectors", "glove.txt", "--top-k", 1, "-o"]
    assert go(*words, "out", "--p", 1) == 0
    assert {"text": "stories", "label": "a"} in lines(Path("out/train.jsonl"))
    options = json.loads(Path("out/generation.json").read_text())["steps"][-1]["options"]
    assert options["word_vectors"]["name"] == "glove.txt"
    assert options["word_vectors"]["content"].startswith("sha256:")
    assert go(*words, "out", "--p", 1, "--reuse") == 0
    Path("glove.txt").write_text("plots 1 0\nbanana 0.9 0.1\n")
    assert go(*words, "out", "--p", 1, "--reuse") == 3  # other vectors, other rows


def test_reuse_skips_what_is_made(here, capsys):
    assert go(*WORDS.split(), "--copies", 1) == 0
    before = contents(Path("out"))
    assert go(*WORDS.split(), "--copies", 1) == 3
    assert go(*WORDS.split(), "--copies", 1, "--reuse") == 0
    assert "already made" in capsys.readouterr().err
    assert go(*WORDS.split(), "--copies", 2, "--reuse") == 3
    assert contents(Path("out")) == before
    assert go(*WORDS.split(), "--copies", 2, "--force") == 0
    assert contents(Path("out")) != before


def test_a_recipe_may_generate(here, capsys):
    Path("r.yaml").write_text(
        f"variables: {{at: '{here}'}}\n"
        "steps:\n"
        "  - generate: {model: '{at}/mlm', data: '{at}/data', copies: 1, output: rows}\n"
        "  - finetune: {model: '{at}/model', data: rows, max-steps: 1, output: tuned}\n"
    )
    for _ in range(2):
        assert go("run", "r.yaml", "-o", "work") == 0
        assert capsys.readouterr().out == "work\n"
    assert Path("work/tuned/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("generate model --data data -o out", 3, "--task masked-lm --data TEXT"),
        ("generate mlm -o out", 2, "--data"),
        ("generate mlm --data data/validation.jsonl -o out", 3, "no training rows"),
        ("generate mlm --data data --p 1.5", 2, "--p 1.5: expected 0.0 to 1.0"),
        ("generate mlm --data data --copies 0", 2, "--copies 0: expected at least 1"),
        ("generate mlm --data data --word-vectors none.txt -o out", 3, "none.txt does not exist"),
        ("generate mlm --data data --method tinybert", 2, "--method tinybert_augment"),
        ("generate mlm --data data -o mlm --force", 3, "is the input"),
    ],
)
def test_what_cannot_work_is_refused_at_once(words, code, said, here, capsys):
    before = sorted(os.listdir())
    assert go(*words.split()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("verb", ["generate mlm", "finetune model"])
def test_generated_rows_are_never_replaced_by_what_reads_them(verb, here, capsys):
    assert go(*WORDS.split(), "--copies", 1) == 0
    before = contents(Path("out"))
    assert go(*verb.split(), "--data", "out", "-o", "out", "--force") == 3
    assert "holds the input out/train.jsonl" in capsys.readouterr().err
    assert contents(Path("out")) == before


def test_broken_vectors_leave_nothing(here, capsys):
    Path("glove.txt").write_text("plots 1 0\nstories 0.9\n")
    before = sorted(os.listdir())
    assert go(*WORDS.split(), "--word-vectors", "glove.txt") == 3
    assert "glove.txt:2" in capsys.readouterr().err
    assert sorted(os.listdir()) == before


def go_on(folder: Path, whole: dict[str, str]) -> processes.Done:
    done = processes.run(f"{WORDS} --resume", folder)
    assert (done.code, done.out) == (0, "out\n"), done.err
    assert contents(folder / "out") == whole
    assert sorted(os.listdir(folder)) == ["data", "mlm", "model", "out"]
    return done


@pytest.mark.parametrize(
    ("place", "call", "kept"),
    [
        (KEPT, 1, 0),
        (KEPT, 3, 2),
        ("compressor.model.fill._likeliest", 2, 0),
        ("compressor.commands.job.write_lineage", 1, 3),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_it_goes_on_to_the_same_bytes(place, call, kept, number, here, whole):
    done = processes.run(WORDS, here, at=At(place, number, call))
    assert not (here / "out").exists()
    state = here / "out.state" / "kept.jsonl"
    assert len(state.read_text().splitlines()) == kept
    if number == signal.SIGTERM:
        assert (done.code, done.out) == (143, "")
        assert "--resume" in done.err
        assert not [name for name in os.listdir(here) if name.startswith(".")]
    assert processes.run(WORDS, here).code == 3  # never lost by accident
    before = contents(here / "out.state")
    other = processes.run(f"{WORDS} --resume --p 0.5", here)
    assert other.code == 3
    assert "p: 0.4 -> 0.5" in other.err
    assert contents(here / "out.state") == before
    resumed = go_on(here, whole)
    assert (f"going on after block {kept}" in resumed.err) == bool(kept)


def test_a_full_disk_leaves_a_run_to_go_on_with(here, whole):
    done = processes.run(WORDS, here, file_limit=100_000)  # less than the kept candidates
    assert done.code == 6, done.err
    assert "too large" in done.err or "disk is full" in done.err
    assert not (here / "out").exists()
    go_on(here, whole)


def test_stderr_holds_only_our_own_lines(here, whole):
    done = processes.run(WORDS, here)
    assert (done.code, done.out) == (0, "out\n")
    for line in done.err.splitlines():
        assert processes.OURS.fullmatch(line), line
    quiet = processes.run(f"{WORDS} --force --quiet", here)
    assert (quiet.code, quiet.out, quiet.err) == (0, "out\n", "")
    assert contents(here / "out")["train.jsonl"] == whole["train.jsonl"]
