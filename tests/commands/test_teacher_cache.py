"""`--teacher-cache` by the command line: kept, reused, refused, and never in the record."""

import json
import os
import shutil

import pytest
import torch
import transformers

import tiny
from compressor.cli import run
from compressor.commands.job import command_line
from compressor.errors import UsageError
from compressor.methods.contract import Loss
from compressor.methods.objectives import soft_labels
from compressor.model.views import HIDDEN, LOGITS
from compressor.train import teacher as teacher_room
from compressor.train.options import parse_size

DISTILL = "distill teacher --layers 2 --epochs 1 --batch-size 16 --lr 1e-3".split()


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "data", "teacher"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """Rows that teachers were asked about before training."""
    rows, original = [], teacher_room.Teacher._answers

    def counted(self, some):
        rows.extend(some)
        return original(self, some)

    monkeypatch.setattr(teacher_room.Teacher, "_answers", counted)
    return rows


def distill(*words, data="data", output="out"):
    return run([*DISTILL, "--data", data, "-o", output, *map(str, words)])


def files(folder):
    """All that a hash may cover."""
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "run.json"}


def test_answers_are_reused_by_other_seeds_rates_and_methods(here, asked, capsys):
    assert distill("--teacher-cache", "kept", output="one") == 0
    assert "kept has the teacher's answers" in capsys.readouterr().err
    before = files(here / "kept")
    assert len(asked) > 200
    asked.clear()
    changed = ["--seed", 7, "--lr", 2e-3, "--temperature", 4, "--batch-size", 8, "--layers", 1]
    assert distill("--teacher-cache", "kept", *changed, output="two") == 0
    words = "prune base --method gmp --teacher teacher --data data --epochs 1 --teacher-cache kept"
    assert run([*words.split(), "-o", "three"]) == 0
    words = "finetune base --teacher teacher --data data --epochs 1 --teacher-cache=kept -o four"
    assert run(words.split()) == 0
    assert asked == []
    assert files(here / "kept") == before
    assert sorted(os.listdir(here)) == sorted("base data teacher kept one two three four".split())


def test_record_and_weights_are_the_same_with_and_without(here):
    assert distill(output="student") == 0
    plain = files(here / "student")
    shutil.rmtree(here / "student")
    assert distill("--teacher-cache", "kept", "--cache-limit", "9MB", output="student") == 0
    assert files(here / "student") == plain
    shutil.rmtree(here / "student")
    assert distill("--cache-limit=9MB", "--teacher-cache=kept", output="student") == 0
    assert files(here / "student") == plain


def test_asked_live_the_weights_differ_by_rounding_alone(here):
    """Rows share other batches then, and a sum of floats depends on the padding."""
    words = ["--precision", "fp32"]
    assert distill(*words, output="kept-answers") == 0
    assert distill(*words, "--cache-limit", "1kB", output="live") == 0
    assert not list(here.glob("*.state"))
    first, second = (
        transformers.AutoModelForSequenceClassification.from_pretrained(here / name).state_dict()
        for name in ("kept-answers", "live")
    )
    for name in first:
        if name.endswith("key.bias"):
            continue  # its gradient is nothing but rounding, which Adam makes as large as any
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
    records = [
        json.loads((here / name / "compression.json").read_text())["steps"][-1]
        for name in ("kept-answers", "live")
    ]
    for record in records:
        assert not [key for key in record["options"] if "cache" in key]
        assert "cache" not in record["command"]
        record.pop("command")
        record.pop("metrics")
    assert records[0] == records[1]


def test_a_run_goes_on_with_a_folder_and_not_with_another_limit(here, asked, monkeypatch, capsys):
    from compressor.train import loop

    assert distill(output="student") == 0
    wanted = files(here / "student")
    shutil.rmtree(here / "student")
    original = loop._Loop._step

    def crash(self, step):
        if step == 10:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_step", crash)
        assert distill("--save-steps", 4, output="student") == 130
    capsys.readouterr()
    words = ["--save-steps", 4, "--resume"]
    assert distill(*words, "--cache-limit", "1kB", output="student") == 3
    assert "cache_limit: 2000000000 -> 1000" in capsys.readouterr().err
    assert distill(*words, "--teacher-cache", "kept", output="student") == 0
    found = files(here / "student")
    assert found["model.safetensors"] == wanted["model.safetensors"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--max-length", "6"], "max_length: 64 -> 6"),
        (["--on-long", "error"], "on_long: truncate -> error"),
        (["--data", "other"], "data: sha256:"),
    ],
)
def test_other_answers_are_refused_in_words(here, capsys, words, named):
    tiny.data(here / "other", train=64, seed=3)
    assert distill("--teacher-cache", "kept", "--max-steps", 1) == 0
    before = files(here / "kept")
    assert distill("--teacher-cache", "kept", *words, output="two") == 3
    err = capsys.readouterr().err
    assert named in err
    assert "rm -r kept" in err
    assert files(here / "kept") == before
    assert not (here / "two").exists()
    assert not (here / "two.state").exists()


def test_another_teacher_and_other_weights_are_refused(here, capsys):
    shutil.copytree(here / "teacher", here / "second")
    path = here / "second" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert distill("--teacher-cache", "kept", "--max-steps", 1) == 0
    words = ["--data", "data", "--teacher-cache", "kept", "--accept-changed", "-o", "two"]
    assert run(["distill", "second", *words]) == 3
    assert "teachers.teacher.weights: sha256:" in capsys.readouterr().err
    assert run(["distill", "teacher", "second", *words]) == 3
    assert "teachers.teacher1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        ("--teacher-cache teacher/kept", 3, "teacher"),
        ("--teacher-cache out", 3, "out"),
        ("--teacher-cache none/kept", 3, "mkdir -p none"),
        ("--teacher-cache data", 3, "no teacher's cache"),
        ("--cache-limit many", 2, "500MB"),
        ("--cache-hidden", 2, "hidden states"),
        ("--method minilm_v2 --cache-hidden", 2, "queries, keys and values"),
    ],
)
def test_what_makes_no_sense_is_refused(here, capsys, words, code, named):
    before = sorted(os.listdir(here))
    assert distill(*words.split()) == code
    assert named in capsys.readouterr().err
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize(
    "words", ["finetune base --cache-hidden", "finetune base --teacher-cache kept"]
)
def test_a_cache_without_a_teacher_is_refused(here, capsys, words):
    assert run([*words.split(), "--data", "data"]) == 2
    assert "no teacher is asked" in capsys.readouterr().err


def test_what_cannot_be_kept_is_asked_live_and_said(here, capsys):
    words = ["--teacher-cache", "kept", "--method", "minilm_v2", "--max-steps", 1]
    assert distill(*words) == 0
    assert "asked in every step: queries, keys and values" in capsys.readouterr().err
    assert not (here / "kept").exists()


class Hidden:
    """Answers and last hidden states."""

    student_shows = teacher_shows = frozenset({LOGITS, HIDDEN})

    def __init__(self, options, context):
        pass

    def loss(self, batch, student, teacher):
        distance = (student.hidden[-1] - teacher.hidden[-1]).square().mean(-1)
        total = (distance * batch["attention_mask"]).sum() / batch["attention_mask"].sum()
        return Loss(total, {"hidden": total.detach()})


def test_hidden_states_are_kept_for_other_seeds_within_the_limit(here, asked, monkeypatch, capsys):
    monkeypatch.setattr(soft_labels, "Objective", Hidden)
    words = ["--teacher-cache", "kept", "--cache-hidden"]
    assert distill(*words, "--cache-limit", "100kB") == 2
    assert "--cache-limit allows 100.0 kB" in capsys.readouterr().err
    assert not (here / "kept").exists()
    assert distill(*words, "--cache-limit", "5MB") == 0
    assert {"hidden.npy", "logits.npy"} < set(files(here / "kept"))
    assert sum(map(len, files(here / "kept").values())) < 5_000_000
    asked.clear()
    assert distill(*words, "--seed", 3, output="two") == 0
    assert asked == []


def other_words(folder, like):
    """A copy of a checkpoint whose tokenizer gives two words each other's ids."""
    shutil.copytree(like, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["great"], words["awful"] = words["awful"], words["great"]
    path.write_text(json.dumps(content))
    (folder / "compression.json").unlink()


def test_a_teacher_with_other_tokens_teaches_by_its_answers(here, asked, capsys):
    other_words(here / "foreign", here / "teacher")
    weights = here / "foreign" / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    rows = tiny.tokenizer().convert_tokens_to_ids(["great", "awful"])
    words = tensors["bert.embeddings.word_embeddings.weight"]
    words[rows] = words[rows[::-1]].clone()  # so that it answers as the teacher does
    save_file(tensors, weights, metadata={"format": "pt"})
    words = "finetune base --data data --epochs 6 --batch-size 16 --lr 4e-3 --hard-weight 0"
    assert run([*words.split(), "--teacher", "teacher", "-o", "one"]) == 0
    capsys.readouterr()
    assert run([*words.split(), "--teacher", "foreign", "-o", "two"]) == 0
    err = capsys.readouterr().err
    assert "'awful' is" in err
    assert "foreign reads the rows by its own" in err
    # The same answers to the same texts: the same student.
    assert files(here / "one")["model.safetensors"] == files(here / "two")["model.safetensors"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--method minilm_v2", "minilm_v2 compares the two token by token"),
        ("--method soft_labels --method tinybert", "tinybert compares"),
        ("--task masked-lm --student base", "masked-lm"),
    ],
)
def test_methods_that_look_at_tokens_refuse_another_tokenizer(here, capsys, words, named):
    other_words(here / "foreign", here / "teacher")
    if "masked-lm" in words:
        tiny.checkpoint(here / "language", head="AutoModelForMaskedLM", labels=None)
        shutil.copy(here / "foreign" / "tokenizer.json", here / "language")
        (here / "base").unlink()
        tiny.checkpoint(here / "base", head="AutoModelForMaskedLM", labels=None)
        command = f"distill language --data data {words} -o out"
    else:
        command = f"distill teacher --student foreign --data data {words} -o out"
    assert run(command.split()) == 3
    err = capsys.readouterr().err
    assert named in err
    assert "'awful' is" in err
    assert not (here / "out.state").exists()


def test_the_command_leaves_the_cache_out():
    words = "distill t --teacher-cache kept --cache-limit 2GB --cache-hidden --lr 1 -o out".split()
    assert command_line(words) == "compressor distill t --lr 1 -o out"
    words = "distill t --teacher-cache=kept --cache-limit=2GB --lr 1".split()
    assert command_line(words) == "compressor distill t --lr 1"


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("500MB", 5 * 10**8), ("1.5 kb", 1500), ("12", 12), ("1TB", 10**12)],
)
def test_sizes(text, size):
    assert parse_size(text, "--cache-limit") == size


@pytest.mark.parametrize("text", ["", "GB", "-1MB", "2 gigabytes", "1e9", "nan"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="500MB"):
        parse_size(text, "--cache-limit")
