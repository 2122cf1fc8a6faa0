"""Which maps suffer, what stays in float for it, and refusals."""

import json
from dataclasses import replace

import pytest
import torch

from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.commands import sensitivity
from compressor.commands.sensitivity import Sensitivity
from compressor.commands.slots import Picked
from compressor.methods.find import method
from compressor.model.load import load
from compressor.model.save import probe_inputs

HARMED = "bert.encoder.layer.2.output.dense"


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


def spoil(folder, into):
    """A copy whose rows in one map have an outlier each, which an input of zero never meets."""
    loaded = load(open_checkpoint(folder), "text-classification")
    with torch.no_grad():
        down = loaded.model.get_submodule(HARMED)
        up = loaded.model.get_submodule(HARMED.replace("output.dense", "intermediate.dense"))
        up.weight[0] = 0.0
        up.bias[0] = 0.0
        down.weight[:, 0] = 60.0
    loaded.model.save_pretrained(into)
    loaded.tokenizer.save_pretrained(into)


def last_metrics(folder) -> dict:
    return json.loads((folder / "compression.json").read_text())["steps"][-1]["metrics"]


def test_the_map_with_outliers_comes_first_and_nothing_is_left_changed(here):
    spoil(here / "teacher", here / "spoilt")
    loaded = load(open_checkpoint(here / "spoilt"), "text-classification")
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    dynamic = method("transforms", "dynamic")
    inputs = probe_inputs(loaded.model)
    batches = [{**inputs, "labels": torch.tensor([0, 1])}]
    found = Sensitivity(loaded, batches, Picked(dynamic, dynamic.options()))
    assert next(iter(found.harms)) == HARMED
    assert list(found.harms.values()) == sorted(found.harms.values(), reverse=True)
    assert len(found.harms) == 24
    assert min(found.harms.values()) > 0
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_fewest_maps_stay_in_float(here, capsys):
    spoil(here / "teacher", here / "spoilt")
    assert run("quantize spoilt --data data -o all".split()) == 0
    words = "quantize spoilt --data data --max-drop 0 --sensitivity -o some"
    assert run(words.split()) == 0
    shown = capsys.readouterr().err
    assert HARMED in shown
    some, every = last_metrics(here / "some"), last_metrics(here / "all")
    assert next(iter(some["sensitivity"])) == HARMED
    kept = some["kept_in_float"]
    assert kept == list(some["sensitivity"])[: len(kept)]
    assert set(kept) <= set(some["linears_float"])
    assert some["linears_quantized"] == 24 - len(kept)
    assert some["lost"] <= 0
    assert some["accuracy"] >= every["accuracy"]
    config = json.loads((here / "some/config.json").read_text())
    assert set(kept) <= set(config["quantization_config"]["ignore"])


def test_a_drop_that_cannot_be_met_exits_4(here, capsys, monkeypatch):
    from compressor.train import evaluate

    genuine, calls = evaluate.evaluate, []

    def worse(*given, **named):
        found = genuine(*given, **named)
        calls.append(found)
        lost = 0.0 if len(calls) == 1 else 0.5 + 0.01 * len(calls)
        return replace(found, metrics={"accuracy": 1.0 - lost})

    monkeypatch.setattr(evaluate, "evaluate", worse)
    assert run("quantize teacher --data data --max-drop 1 -o some".split()) == 4
    shown = capsys.readouterr().err
    assert "the least that is lost is 52.00 points of accuracy, with 0 of 24 maps in float" in shown
    assert "the numbers are in some.refused" in shown
    assert not (here / "some").exists()
    report = json.loads((here / "some.refused/report.json").read_text())
    assert (report["kind"], report["where"]) == ("gate", "--max-drop")
    assert report["command"] == "compressor quantize teacher --data data --max-drop 1 -o some"
    assert (report["metric"], report["in_float"]) == ("accuracy", 1.0)
    assert report["lost"] == pytest.approx([52.0 + n for n in range(24)])
    assert len(report["sensitivity"]) == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--max-drop 1", "--max-drop compares outputs on rows"),
        ("--sensitivity", "--sensitivity compares outputs on rows"),
        ("--data data/train.jsonl --max-drop 1", "no validation rows"),
        ("--data data --sensitivity --smooth 0.5", "changes several together"),
    ],
)
def test_what_cannot_be_compared_is_refused_first(flags, words, here, capsys):
    assert run(f"quantize teacher {flags} -o some".split()) == 2
    assert words in capsys.readouterr().err


def test_one_output_is_compared_by_its_square():
    one, other = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [2.0]])
    assert sensitivity._difference([one], [other]) == pytest.approx(0.125)
    two = torch.tensor([[0.0, 0.0]])
    skewed = torch.tensor([[1.0, 0.0]])
    # log(1 + e) - 0.5 - log 2
    assert sensitivity._difference([two], [skewed]) == pytest.approx(0.120115, abs=1e-6)


def test_a_model_without_a_head_for_the_rows_is_refused_first(here, capsys):
    import tiny

    tiny.checkpoint(here / "words", head="AutoModelForMaskedLM", labels=None)
    assert run("quantize words --data data --max-drop 1 -o some".split()) == 3
    assert "a head for masked-lm, and the rows are for" in capsys.readouterr().err


def test_what_a_method_makes_of_the_rest_is_judged_too(here, monkeypatch, capsys):
    monkeypatch.setattr(Sensitivity, "kept_in_float", kept_nothing)
    assert run("quantize teacher --data data --max-drop 1 -o some".split()) == 4
    assert "quantized anew" in capsys.readouterr().err
    assert not (here / "some").exists()
    report = json.loads((here / "some.refused/report.json").read_text())
    assert report["lost"] == pytest.approx([100 * (2.0 - report["metrics"]["accuracy"])])


def kept_nothing(self, *_):
    self.whole = 2.0  # an accuracy that nothing reaches
    return []
