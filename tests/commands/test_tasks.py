"""Every task from rows to a scored ONNX graph, on the family that it is made for."""

import json
import random

import pytest

import tiny
from compressor.cli import run

QUICK = ["--batch-size", "8", "--max-length", "24"]


def go(*words):
    return run([str(word) for word in words])


def pairs(count):
    made = []
    for row in tiny.rows(count):
        other = random.Random(len(made)).choice(tiny.rows(count))
        label = "same" if row["label"] == other["label"] else "different"
        made.append({"sentence1": row["text"], "sentence2": other["text"], "label": label})
    return made


def scores(count):
    return [
        {"text": row["text"], "score": 0.5 + 2.0 * (row["label"] == "positive")}
        for row in tiny.rows(count)
    ]


def texts(count):
    return [{"text": row["text"]} for row in tiny.rows(count)]


CASES = {
    "pair": ("bert", "AutoModelForSequenceClassification", pairs, [], "accuracy"),
    "regression": ("distilbert", "AutoModelForSequenceClassification", scores, [], "pearson"),
    "masked-lm": ("roberta", "AutoModelForMaskedLM", texts, ["--task", "masked-lm"], "perplexity"),
    "causal-lm": ("gpt2", "AutoModelForCausalLM", texts, ["--task", "causal-lm"], "perplexity"),
    "causal-lm-llama": (
        "llama",
        "AutoModelForCausalLM",
        texts,
        ["--task", "causal-lm"],
        "perplexity",
    ),
}


SLOW = ("masked-lm", "causal-lm-llama")


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES]
)
def test_from_rows_to_a_scored_graph(case, tmp_path, monkeypatch, capsys):
    family, head, make, flags, metric = CASES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for split, count in (("train", 48), ("validation", 24)):
        lines = "\n".join(json.dumps(row) for row in make(count))
        (tmp_path / "d" / f"{split}.jsonl").write_text(lines)
    labels = None if "lm" in case else tiny.LABELS
    tiny.checkpoint(tmp_path / "base", family, head=head, labels=labels)

    learn = ["--epochs", 6, "--lr", 5e-3]
    assert go("finetune", "base", "--data", "d", *flags, *QUICK, *learn, "-o", "tuned") == 0
    assert go("distill", "tuned", "--layers", 1, "--data", "d", *flags, *QUICK, "-o", "small") == 0
    source = "small"
    if family != "gpt2":  # whose Conv1D the checkpoint format cannot hold
        assert go("quantize", "small", "-o", "int8") == 0
        source = "int8"
    assert go("export", source, "-o", "graph") == 0
    words = [
        "small",
        "graph",
        "--data",
        "d",
        *flags,
        "--shapes",
        "1x8",
        "--rounds",
        3,
        "--starts",
        1,
    ]
    assert go("benchmark", *words, "-o", "report") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    tuned, small, graph = report["models"]
    assert report["baseline"] == "tuned"
    for model in (tuned, small, graph):
        accuracy = model["accuracy"]
        assert accuracy["metric"] == metric
        if accuracy["value"] is not None and accuracy["low"] is not None:
            assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    if metric == "perplexity":
        assert tuned["accuracy"]["value"] < len(tiny.tokenizer()) / 2
        near = small["accuracy"]["value"]
        assert graph["accuracy"]["value"] == pytest.approx(near, rel=0.1)
