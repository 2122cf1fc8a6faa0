"""A pair task from a teacher that tells the texts apart to a student that does not."""

import json
import random

import pytest
import torch
import transformers

import tiny
from compressor.cli import run
from compressor.train import criterion

LABELS = ("other", "same")


def pairs(count, seed):
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        first = [draw.choice(tiny.WORDS) for _ in range(draw.randint(2, 5))]
        second = first if number % 2 else [draw.choice(tiny.WORDS) for _ in first]
        label = LABELS[number % 2]
        rows.append({"sentence1": " ".join(first), "sentence2": " ".join(second), "label": label})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs").mkdir()
    for split, count in (("train", 48), ("validation", 16), ("test", 16)):
        (tmp_path / "pairs" / f"{split}.jsonl").write_text(pairs(count, len(split)))
    tiny.checkpoint(tmp_path / "teacher", labels=LABELS, num_hidden_layers=4)
    return tmp_path


def go(words):
    return run(words.split())


def test_a_pair_task_from_distillation_to_the_report(here, monkeypatch):
    seen, plain = [], criterion.look

    def look(model, inputs, shows, *, bare):
        seen.append((bare.config.model_type, "token_type_ids" in inputs))
        return plain(model, inputs, shows, bare=bare)

    monkeypatch.setattr(criterion, "look", look)
    training = "--data pairs --epochs 1 --batch-size 8"
    assert go(f"distill teacher --student distilbert {training} -o student") == 0
    assert ("distilbert", True) in seen  # the batch has them for the teacher's sake
    assert go(f"finetune student --teacher teacher {training} -o tuned") == 0
    assert go("quantize tuned --method static --data pairs -o int8") == 0
    assert go("export int8 -o exported") == 0
    models = "student tuned int8 exported --baseline teacher"
    assert go(f"benchmark {models} --data pairs --split test --rounds 3 --starts 1 -o report") == 0
    report = json.loads((here / "report" / "report.json").read_text())
    assert [model["accuracy"]["n"] for model in report["models"]] == [16] * 5


@pytest.mark.parametrize("hidden", ["--method minilm_v2", "--method soft_labels"])
def test_the_teacher_sees_token_types_though_the_students_tokenizer_makes_none(
    here, monkeypatch, hidden
):
    """From a cache of answers, and asked anew for each batch."""
    assert go("distill teacher --student distilbert --data pairs --max-steps 1 -o student") == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained("student")
    assert "token_type_ids" not in tokenizer("great", "film")
    seen = []

    def watched(self, *args, token_type_ids=None, **kwargs):
        seen.append(token_type_ids)
        return plain(self, *args, token_type_ids=token_type_ids, **kwargs)

    plain = transformers.BertModel.forward
    monkeypatch.setattr(transformers.BertModel, "forward", watched)
    assert go(f"distill teacher {hidden} --student student --data pairs --max-steps 1 -o x") == 0
    assert seen
    assert all(types is not None and bool((types == 1).any()) for types in seen)
    assert all(types.dtype == torch.long for types in seen)
