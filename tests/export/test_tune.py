"""Variants of a graph: all compute the same, the fastest is kept, no time is in the lineage."""

import json

import onnx
import pytest

import tiny
from compressor.cli import run
from compressor.errors import GateError
from compressor.export import tune


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint("model")
    return tmp_path


def nodes(folder) -> list[str]:
    return [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]


@pytest.mark.parametrize("fastest", range(4))
def test_the_fastest_is_kept(here, monkeypatch, fastest, capsys):
    names = list(tune.VARIANTS)

    def measured(candidates, shapes):
        assert shapes == [(2, 8)]
        assert list(candidates) == names
        for prepare in candidates.values():
            prepare(2, 8)(1)
        times = {name: 5.0 - (number == fastest) for number, name in enumerate(names)}
        return {name: [{"p50_ms": time}] for name, time in times.items()}

    monkeypatch.setattr(tune, "measure_in_turns", measured)
    assert run("export model --tune 2x8 -o graph".split()) == 0
    assert f"{names[fastest]} (kept)" in capsys.readouterr().err
    kinds = nodes(here / "graph")
    assert ("Attention" in kinds) == (fastest < 2)
    assert ("Sum" in kinds) == (fastest % 2 == 0)
    metrics = json.loads((here / "graph/compression.json").read_text())["steps"][-1]["metrics"]
    assert metrics["kept"] == names[fastest]
    assert metrics["parity"]["error"] <= metrics["parity"]["tolerance"]
    assert "tuning_ms" not in metrics
    facts = json.loads((here / "graph/run.json").read_text())
    assert facts["tuning_ms"][names[fastest]] == 4.0
    assert sorted(file.name for file in (here / "graph").glob("*.onnx*")) == ["model.onnx"]
    assert not list((here / "graph").glob(".*"))


def test_times_are_measured(here):
    assert run("export model --tune 1x8 --weights fp32 -o graph".split()) == 0
    facts = json.loads((here / "graph/run.json").read_text())
    assert min(facts["tuning_ms"].values()) > 0
    assert len(facts["tuning_ms"]) == 4


def test_a_variant_that_fails_is_left_out_and_the_first_is_not(tmp_path, capsys):
    def export(folder, **options):
        raise GateError("parity: it differs")

    with pytest.raises(GateError):
        tune.tuned_folder(tmp_path, 1, 8, export)


@pytest.mark.parametrize("text", ["8", "1x8,2x8", "0x8", "axb"])
def test_shapes_that_make_no_sense(here, text):
    assert run(["export", "model", "--tune", text, "-o", "graph"]) == 2
