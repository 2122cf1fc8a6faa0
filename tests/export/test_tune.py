"""Graphs to choose from: the fastest that loses little is kept, and no time is in the lineage."""

import json
import shutil

import onnx
import pytest
import torch

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.commands.export import example_inputs
from compressor.errors import GateError
from compressor.export import export, tune
from compressor.export.graph import export_graph
from compressor.model.load import load, load_whole

FORMS = list(tune.FORMS)
NAMES = [
    f"int8, {FORMS[0]}",
    f"int8 weights alone, {FORMS[0]}",
    f"fp32, {FORMS[0]}",
    *(f"int8, {form}" for form in FORMS[1:]),
]
INT8, ALONE, FP32 = range(3)


@pytest.fixture(scope="module")
def traced(tmp_path_factory, workshop):
    """A trained checkpoint with outliers, and every form of its graph: tracing takes seconds."""
    place = tmp_path_factory.mktemp("traced")
    spoil(workshop / "teacher", place / "model")
    loaded = load_whole(open_checkpoint(place / "model"), attention="eager")
    for number, form in enumerate(tune.FORMS.values()):
        export_graph(loaded.model, example_inputs(loaded), place / f"{number}.onnx", **form)
    shutil.copytree(workshop / "data", place / "data")
    return place


def spoil(folder, into):
    """A copy in which one input of the pooler is far larger than the others, and unused."""
    loaded = load(open_checkpoint(folder), "text-classification")
    with torch.no_grad():
        loaded.model.bert.encoder.layer[-1].output.LayerNorm.bias[0] = 4000.0
        loaded.model.bert.pooler.dense.weight[:, 0] = 0.0
    loaded.model.save_pretrained(into)
    loaded.tokenizer.save_pretrained(into)


@pytest.fixture
def here(traced, tmp_path, monkeypatch):
    """`model` and `data`, where a graph is copied that was traced before."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "data"):
        (tmp_path / name).symlink_to(traced / name)

    def copied(model, example, path, *, opset=None, plain_sums=True, cache=False):
        form = {"opset": opset} if opset else {}
        form |= {} if plain_sums else {"plain_sums": False}
        number = list(tune.FORMS.values()).index(form)
        shutil.copyfile(traced / f"{number}.onnx", path)
        return {}

    monkeypatch.setattr(export, "export_graph", copied)
    return tmp_path


def clock(monkeypatch, *order):
    """Make the candidates with these numbers the fastest, in this order."""

    def measured(candidates, shapes):
        assert shapes == [(2, 8)]
        for prepare in candidates.values():
            prepare(2, 8)(1)
        ranks = {NAMES[number]: rank for rank, number in enumerate(order)}
        return {name: [{"p50_ms": 4.0 + ranks.get(name, 5)}] for name in candidates}

    monkeypatch.setattr(tune, "measure_in_turns", measured)


def kinds(folder) -> list[str]:
    return [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]


def metrics_of(folder) -> dict:
    return json.loads((folder / "compression.json").read_text())["steps"][-1]["metrics"]


@pytest.mark.parametrize("fastest", range(len(NAMES)))
def test_the_fastest_is_kept(here, monkeypatch, fastest, capsys):
    clock(monkeypatch, fastest)
    assert run("export model --tune 2x8 -o graph".split()) == 0
    assert f"kept {NAMES[fastest]}: the fastest of 6" in capsys.readouterr().err
    found = kinds(here / "graph")
    form = max(fastest - 2, 0)
    assert ("Attention" in found) == (form < 2)
    assert ("Sum" in found) == (form % 2 == 0)
    assert ("MatMulInteger" in found) == (fastest not in (ALONE, FP32))
    assert ("MatMulNBits" in found) == (fastest == ALONE)
    metrics = metrics_of(here / "graph")
    assert metrics["kept"] == NAMES[fastest]
    assert metrics["number_format"] == ("fp32" if fastest == FP32 else "int8")
    assert metrics["parity"]["error"] <= metrics["parity"]["tolerance"]
    assert not {"tuning", "judged"} & set(metrics)
    tuning = json.loads((here / "graph/run.json").read_text())["tuning"]
    assert tuning["kept"] == NAMES[fastest]
    assert [row["name"] for row in tuning["candidates"]] == NAMES
    assert tuning["candidates"][fastest]["p50_ms"] == 4.0
    assert tuning["candidates"][fastest]["parity"]["error"] == metrics["parity"]["error"]
    assert sorted(file.name for file in (here / "graph").glob("*.onnx*")) == ["model.onnx"]
    assert not list((here / "graph").glob(".*"))


def test_rows_decide_what_may_be_kept(here, monkeypatch, capsys):
    """Rounding a whole tensor leaves nothing of the inputs beside an outlier."""
    clock(monkeypatch, INT8, 3, 4, 5, FP32, ALONE)
    assert run("export model --tune 2x8 --data data -o graph".split()) == 0
    tuning = json.loads((here / "graph/run.json").read_text())["tuning"]
    rows = {row["name"]: row for row in tuning["candidates"]}
    for number in (INT8, 3, 4, 5):
        row = rows[NAMES[number]]
        assert row["lost"] > 5
        assert row["lost"] == pytest.approx(
            100 * (tuning["checkpoint"] - row["accuracy"]), abs=1e-4
        )
    assert rows[NAMES[FP32]]["accuracy"] == tuning["checkpoint"] > 0.8
    assert tuning["max_drop"] == 0.5
    assert tuning["kept"] == NAMES[FP32]
    assert "no more than 0.50 points of accuracy; 4 faster lose more" in tuning["why"]

    metrics = metrics_of(here / "graph")
    assert metrics["accuracy"] == tuning["checkpoint"]
    assert metrics["judged"]["lost"] == 0
    step = json.loads((here / "graph/compression.json").read_text())["steps"][-1]
    assert step["inputs"]["data"]["name"] == "data"
    assert (step["options"]["max_drop"], step["options"]["max_length"]) == (0.5, 128)

    card = (here / "graph/README.md").read_text()
    assert tuning["why"] in card
    for name, row in rows.items():
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[2] == f"{row['p50_ms']:.3f}"
        assert cells[3] == f"{row['parity']['error']:.2e}"
        assert cells[4] == f"{row['accuracy']:.4f}"
        assert cells[5] == ("kept" if name == NAMES[FP32] else cells[5])
    assert card.count("| loses too much |") == sum(row["lost"] > 0.5 for row in rows.values())
    assert f"accuracy {metrics['accuracy']:.4f}" in card

    wide = "export model --tune 2x8 --data data --max-drop 100 -o wide"
    assert run(wide.split()) == 0
    assert metrics_of(here / "wide")["kept"] == NAMES[INT8]


def test_none_that_loses_little_exits_4_with_the_numbers(here, monkeypatch, capsys):
    clock(monkeypatch, INT8)
    assert run("export model --tune 2x8 --data data --max-drop -50 -o graph".split()) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert "--max-drop -50 cannot be met: of 6 graphs the one that loses least" in said.err
    assert not (here / "graph").exists()
    report = json.loads((here / "graph.refused/report.json").read_text())
    assert [row["name"] for row in report["tuning"]["candidates"]] == NAMES
    assert {"p50_ms", "parity", "accuracy", "lost"} <= set(report["tuning"]["candidates"][0])


def test_one_graph_is_scored_too(here, capsys):
    assert run("export model --weights fp32 --data data -o graph".split()) == 0
    metrics = metrics_of(here / "graph")
    assert metrics["judged"]["lost"] == 0
    card = (here / "graph/README.md").read_text()
    assert "| lost by the export | 0.00 points of accuracy (" in card
    assert run("export model --data data -o int8".split()) == 4
    assert "--max-drop 0.5 is not met: the graph lost" in capsys.readouterr().err
    report = json.loads((here / "int8.refused/report.json").read_text())
    assert report["accuracy"] < report["checkpoint"] == metrics["accuracy"]
    assert run("export model --data data --max-drop 100 -o int8".split()) == 0
    scored = metrics_of(here / "int8")
    assert scored["accuracy"] == report["accuracy"]

    words = (
        "benchmark int8 --baseline model --data data --shapes 1x8 --rounds 3 --starts 1 -o report"
    )
    assert run(words.split()) == 0
    found = {m["name"]: m for m in json.loads((here / "report/report.json").read_text())["models"]}
    assert found["int8"]["accuracy"]["value"] == pytest.approx(scored["accuracy"], abs=1e-6)
    assert found["int8"]["drop"] == pytest.approx(scored["judged"]["lost"], abs=1e-3)


def test_the_seed_draws_the_inputs_of_the_parity_check(here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(f"export model --seed {seed} -o {name}".split()) == 0
    errors = [metrics_of(here / name)["parity"]["error"] for name in "abc"]
    assert errors[0] == errors[1] != errors[2]


def test_times_are_measured(here):
    assert run("export model --tune 1x8 --weights fp32 -o graph".split()) == 0
    rows = json.loads((here / "graph/run.json").read_text())["tuning"]["candidates"]
    assert [row["name"] for row in rows] == [f"fp32, {form}" for form in FORMS]
    assert min(row["p50_ms"] for row in rows) > 0


def test_a_graph_that_fails_is_left_out(here, monkeypatch, capsys):
    def failing(*given, **options):
        raise GateError("parity: it differs")

    clock(monkeypatch, INT8)
    monkeypatch.setattr(export, "quantize_graph", failing)
    assert run("export model --tune 2x8 -o graph".split()) == 0
    assert f"{NAMES[INT8]}: left out, parity: it differs" in capsys.readouterr().err
    assert metrics_of(here / "graph")["kept"] == NAMES[FP32]
    card = (here / "graph/README.md").read_text()
    assert f"| {NAMES[INT8]} |  |  | parity: it differs |" in card

    monkeypatch.setattr(export, "export_graph", failing)
    assert run("export model --tune 2x8 -o none".split()) == 4
    assert (
        "parity: it differs"
        in json.loads((here / "none.refused/report.json").read_text())["message"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dynamic", "gptq --group-size 0 --samples 32"])
def test_a_checkpoints_own_integers_compete_with_floats(workshop, tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    rows = f"--data {workshop}/data"
    assert run(f"quantize {workshop}/teacher --method {method} {rows} -o int8".split()) == 0
    clock(monkeypatch, INT8)
    assert run(f"export int8 --tune 2x8 {rows} --max-drop 2 -o graph".split()) == 0
    tuning = json.loads((tmp_path / "graph/run.json").read_text())["tuning"]
    names = [row["name"] for row in tuning["candidates"]]
    assert names == [name for name in NAMES if "alone" not in name]
    # The checkpoint is scored as it stands, its inputs rounded where it rounds them.
    scored = json.loads((tmp_path / "int8/compression.json").read_text())["steps"][-1]["metrics"]
    assert tuning["checkpoint"] == scored["accuracy"]


@pytest.mark.parametrize("text", ["8", "1x8,2x8", "0x8", "axb"])
def test_shapes_that_make_no_sense(here, text):
    assert run(["export", "model", "--tune", text, "-o", "graph"]) == 2


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ("--tune 1x8 --cpu arm64", 2, "--cpu arm64 is for another"),
        ("--tune 1x8 --cpu x86", 2, "whose preset is vnni"),
        ("--tune 1x8 --weights fp16", 2, "--weights fp16 is for GPUs"),
        ("--max-drop 1", 2, "--max-drop does nothing without --data"),
        ("--max-length 64", 2, "--max-length does nothing without --data"),
        ("--domain books", 2, "--domain does nothing without --data"),
        ("--data data/train.jsonl", 2, "has no validation rows"),
    ],
)
def test_what_would_mean_nothing_is_refused_first(here, monkeypatch, capsys, flags, code, said):
    monkeypatch.setattr("compressor.export.cpu.cpu_preset", lambda: "vnni")
    assert run(f"export model {flags} -o graph".split()) == code
    assert said in capsys.readouterr().err
    assert not (here / "graph").exists()


def test_the_preset_of_this_machine_may_be_named(here, monkeypatch):
    clock(monkeypatch, INT8)
    monkeypatch.setattr("compressor.export.cpu.cpu_preset", lambda: "x86")
    assert run("export model --tune 2x8 --cpu x86 -o graph".split()) == 0


def test_rows_for_another_head_are_refused_first(here, capsys):
    tiny.checkpoint(here / "words", head="AutoModel", labels=None)
    assert run("export words --data data -o graph".split()) == 3
    assert "words has no head" in capsys.readouterr().err
