"""What objectives ask of the rows: their task, and whether and how text is masked."""

import json

import numpy as np
import pytest

import tiny
from compressor.cli import run
from compressor.commands.objectives import held_out_masking_of, masking_of
from compressor.commands.slots import Picked
from compressor.data.batches import Masking
from compressor.methods.find import method
from compressor.train import feed


def picked(name, **options):
    found = method("objectives", name)
    return Picked(found, found.options(**options))


def test_masking_is_said_by_an_objective_and_alike_for_validation():
    asks = [picked("soft_labels"), picked("distilbert", mlm_probability=0.3, mlm_smoothing=0.5)]
    assert masking_of(asks) == Masking(0.3, 0.5)
    assert held_out_masking_of(asks) == Masking(0.15, 0.0)
    assert masking_of([picked("task")]) == Masking(0.15, 0.0)


def test_text_stays_whole_where_nobody_looks_at_answers():
    blind = [picked("minilm_v2"), picked("tinybert")]
    assert masking_of(blind) == held_out_masking_of(blind) == Masking(probability=0.0)
    assert masking_of([*blind, picked("soft_labels")]) == Masking()


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    tiny.checkpoint(tmp_path / "masked", head="AutoModelForMaskedLM", labels=None)
    return tmp_path


@pytest.fixture
def batches(monkeypatch):
    """(share of real tokens that are asked about, masking) of every batch that is made."""
    seen, plain = [], feed.Feed.arrays

    def arrays(self, rows, *key, **widths):
        made = plain(self, rows, *key, **widths)
        if made["labels"].ndim == 2:
            share = np.sum(made["labels"] != -100) / made["attention_mask"].sum()
            seen.append((share, self.masking))
        return made

    monkeypatch.setattr(feed.Feed, "arrays", arrays)
    return seen


TRAINING = "--data data --task masked-lm --max-steps 2 -o out"


def test_relations_are_learnt_from_unmasked_text(here, batches):
    assert run(f"distill masked --method minilm_v2 {TRAINING}".split()) == 0
    assert len(batches) > 2
    assert {share for share, _ in batches} == {0.0}


def test_the_flags_mask_the_training_rows_and_leave_validation_alone(here, batches):
    words = f"distill masked --method distilbert --mlm-probability 0.4 {TRAINING}".split()
    assert run(words) == 0
    training = [share for share, masking in batches if masking == Masking(0.4, 0.7)]
    plain = [share for share, masking in batches if masking == Masking()]
    assert len(training) == 2
    assert len(plain) + 2 == len(batches)
    assert np.mean(training) == pytest.approx(0.4, abs=0.01)
    assert np.mean(plain) < 0.2


@pytest.mark.parametrize("methods", ["distilbert", "distilbert --method soft_labels"])
def test_a_model_learns_without_masked_words(here, methods):
    words = f"distill masked --method {methods} --mlm-probability 0 {TRAINING}".split()
    assert run(words) == 0


@pytest.mark.parametrize(
    "words",
    [
        "distill teacher --method distilbert --data data -o out",
        "finetune teacher --objective distilbert --teacher teacher --data data -o out",
        "prune teacher --objective distilbert --teacher teacher --data data -o out",
    ],
)
def test_an_objective_of_language_models_refuses_labels(here, capsys, words):
    assert run(words.split()) == 2
    said = capsys.readouterr().err
    assert "distilbert serves masked-lm and causal-lm" in said
    assert "--task masked-lm" in said
    assert not (here / "out.state").exists()


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def unlabelled(here):
    """`bare` has the rows of `data`, the training rows without labels; `half` lacks every other."""
    rows = [json.loads(line) for line in (here / "data/train.jsonl").read_text().splitlines()]
    for name, period in (("bare", 1), ("half", 2)):
        (here / name).mkdir()
        (here / name / "validation.jsonl").symlink_to(here / "data/validation.jsonl")
        kept = [row | ({} if n % period else {"label": None}) for n, row in enumerate(rows)]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        (here / name / "train.jsonl").write_text(text)
    return here


@pytest.mark.parametrize("method", ["soft_labels", "logit_mse", "soft_labels --method pkd"])
def test_a_teacher_needs_no_labels(unlabelled, method):
    fixed = f"--layers 2 --method {method} --max-steps 4"
    for name, weight in (("data", 0), ("bare", 0), ("bare", 0.5), ("half", 0.5), ("data", 0.5)):
        words = f"distill teacher {fixed} --data {name} --hard-weight {weight} -o {name}-{weight}"
        assert run(words.split()) == 0
    assert weights(unlabelled / "data-0") == weights(unlabelled / "bare-0")
    different = [weights(unlabelled / name) for name in ("bare-0.5", "half-0.5", "data-0.5")]
    assert len(set(different)) == 3


@pytest.mark.parametrize(
    "method", ["task", "dkd", "continuation_kd", "soft_labels --method task", "soft_labels -h"]
)
def test_labels_are_missed_where_they_are_learnt_from(unlabelled, capsys, method):
    words = f"distill teacher --layers 2 --data bare --method {method}"
    assert run(words.replace("-h", "--hard-weight 1").split()) == 3
    assert "missing labels" in capsys.readouterr().err
