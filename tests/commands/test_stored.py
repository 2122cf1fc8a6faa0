"""`benchmark --baseline report.json`: accuracy and size, never latency."""

import json

import pytest

import tiny
from commands.measured import QUICK, go, report_of


@pytest.fixture(scope="module")
def stored(exported, tmp_path_factory):
    """A report of the teacher alone."""
    folder = tmp_path_factory.mktemp("stored")
    words = ["benchmark", exported / "teacher", "--data", exported / "data", *QUICK]
    assert go(*words, "-o", folder / "first") == 0
    return folder / "first"


@pytest.mark.parametrize("name", ["", "report.json"])
def test_it_serves_for_accuracy_and_size(here, tmp_path, stored, name):
    words = [here / "onnx", "--baseline", stored / name, "--data", here / "data", *QUICK]
    gates = ["--max-drop", 50, "--min-compression", 0.1, "--max-latency-ms", 100_000]
    assert go("benchmark", *words, *gates, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    teacher, onnx = report["models"]
    assert report["baseline"] == teacher["name"] == "teacher"
    first = report_of(stored)["models"][0]
    assert teacher["accuracy"] == first["accuracy"]
    assert teacher["latency"] == []
    assert onnx["speedup"] is None
    assert onnx["paired"] is None
    drop = 100 * (first["accuracy"]["value"] - onnx["accuracy"]["value"])
    assert onnx["drop"] == pytest.approx(drop)
    assert onnx["compression_ratio"]["disk"] == first["size"]["disk"] / onnx["size"]["disk"]
    assert len(report["gates"]) == 3


def test_without_rows_sizes_are_compared(here, tmp_path, stored):
    assert go("benchmark", here / "onnx", "--baseline", stored, *QUICK, "-o", "report") == 0
    teacher, onnx = report_of(tmp_path / "report")["models"]
    assert teacher["accuracy"] is None
    assert onnx["compression_ratio"]["disk"] is not None


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--min-speedup", 1], 2, "another run's"),
        (["--disagreements", "rows.jsonl"], 2, "keeps no answers"),
        (["--split", "train"], 3, "otherwise (split"),
        (["--max-length", 8], 3, "otherwise (longest input"),
    ],
)
def test_what_it_cannot_answer_is_refused(here, capsys, stored, flags, code, said):
    words = [here / "onnx", "--baseline", stored, "--data", here / "data", *QUICK]
    assert go("benchmark", *words, *flags, "-o", "report") == code
    assert said in capsys.readouterr().err


def test_other_rows_are_refused(here, tmp_path, capsys, stored):
    (tmp_path / "other").mkdir()
    lines = (here / "data" / "validation.jsonl").read_text().splitlines()
    (tmp_path / "other/validation.jsonl").write_text("\n".join(lines[:20]))
    words = [here / "onnx", "--baseline", stored, "--data", "other", *QUICK, "-o", "report"]
    assert go("benchmark", *words) == 3
    assert "otherwise (data" in capsys.readouterr().err


def test_other_columns_are_refused_and_no_reason_to_reuse_a_report(here, tmp_path, capsys):
    (tmp_path / "d").mkdir()
    rows = [{"text": r["text"], "gold": r["label"], "noisy": "negative"} for r in tiny.rows(16)]
    (tmp_path / "d/validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["benchmark", here / "teacher", "--data", "d", *QUICK, "--label-column"]
    assert go(*words, "gold", "-o", "lab", "--reuse") == 0
    gold = report_of(tmp_path / "lab")
    assert gold["task"]["columns"] == {"inputs": ["text"], "label": "gold"}
    capsys.readouterr()
    assert go(*words, "gold", "-o", "lab", "--reuse") == 0
    assert "already made" in capsys.readouterr().err
    assert go(*words, "noisy", "--baseline", "lab", "-o", "x") == 3
    assert "scored otherwise (columns" in capsys.readouterr().err
    assert go(*words, "noisy", "-o", "lab", "--reuse", "--force") == 0
    assert report_of(tmp_path / "lab")["task"]["columns"]["label"] == "noisy"


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_what_is_no_report_is_refused(here, tmp_path, capsys, text):
    (tmp_path / "broken.json").write_text(text)
    words = ["benchmark", here / "onnx", "--baseline", "broken.json", *QUICK, "-o", "report"]
    assert go(*words) == 3
    assert "broken.json" in capsys.readouterr().err


def test_nothing_of_the_other_runs_clock_comes_along(here, tmp_path, stored):
    told = report_of(stored)
    prices = {"fixed_ms": 1.0, "token_ms": 1.0, "pair_ms": 0.0, "error": 0.0}
    told["models"][0] |= {
        "scaling": {"rows": [], "fit": prices},
        "landscape": None,
        "peak_gpu_bytes": 777,
        "tokenise_ms": 777.0,
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    words = ["benchmark", here / "onnx", "--baseline", "told.json", *QUICK, "-o", "report"]
    assert go(*words) == 0
    teacher = report_of(tmp_path / "report")["models"][0]
    assert not {"scaling", "landscape", "peak_gpu_bytes", "tokenise_ms"} & teacher.keys()
    assert teacher["stored_in"] == "told.json"
    assert teacher["layers"] == told["models"][0]["layers"]
    assert "Growth" not in (tmp_path / "report" / "report.html").read_text()


def test_a_candidate_of_the_same_name_is_told_apart(here, tmp_path, stored):
    tiny.checkpoint(tmp_path / "new" / "teacher", num_hidden_layers=4)
    words = ["new/teacher", "--baseline", stored, "--data", here / "data", *QUICK]
    assert go("benchmark", *words, "--min-compression", 0.1, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    assert report["baseline"] == "teacher (stored)"
    assert [model["name"] for model in report["models"]] == ["teacher (stored)", "teacher"]
    assert [gate["model"] for gate in report["gates"]] == ["teacher"]
