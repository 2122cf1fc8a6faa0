"""Every family that is opened goes through the verbs: trained, made shallower, sparse, scored."""

import json

import pytest

import tiny
from compressor.checkpoint.families import FAMILIES
from compressor.cli import run

CLASSIFIERS = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "mpnet",
    "albert",
    "deberta-v2",
    "xlm-roberta",
    "camembert",
    "modernbert",
    "gpt2",
    "llama",
)


def test_no_family_that_classifies_texts_is_forgotten():
    assert set(CLASSIFIERS) <= set(FAMILIES)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_from_training_to_a_score(family, workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(tmp_path / "base", family)
    data = f"--data {workshop}/data"
    assert run(f"finetune base {data} --max-steps 2 --keep last -o tuned".split()) == 0
    if family != "albert":  # whose layers are one
        assert run("prune tuned --method layer_drop --drop 1 -o shallow".split()) == 0
    assert run("prune tuned --method magnitude --sparsity 0.5 -o sparse".split()) == 0
    if family not in ("mpnet", "deberta-v2"):  # whose attention is of another kind than most
        return
    words = f"benchmark sparse --baseline tuned {data} --shapes 1x8 --rounds 3 --starts 1 -o report"
    assert run(words.split()) == 0
    models = json.loads((tmp_path / "report/report.json").read_text())["models"]
    assert [model["accuracy"]["n"] for model in models] == [64, 64]
