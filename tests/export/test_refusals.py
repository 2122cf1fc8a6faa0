"""What an export must not let through, each by the command line, and what is left of it on disk.

A graph is broken where it is made, so that everything behind that is the product's own: what is
written, read again, compared, and refused.
"""

import json
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.export import editing, export, graph, integers, parity

FORMATS = ("fp32", "fp16", "int8")
VALUE = "bert.encoder.layer.1.attention.self.value.weight"


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A checkpoint, and its float graph: tracing takes seconds."""
    from compressor.commands.export import example_inputs
    from compressor.model.load import load_whole

    place = tmp_path_factory.mktemp("traced")
    loaded = load_whole(open_checkpoint(tiny.checkpoint(place / "model")), attention="eager")
    graph.export_graph(loaded.model, example_inputs(loaded), place / "model.onnx")
    return place


@pytest.fixture
def tracing(traced, tmp_path, monkeypatch):
    """A folder with `model`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(traced / "model", "model")
    return tmp_path


@pytest.fixture
def here(tracing, traced, monkeypatch):
    """The same, where an export only writes the graph that was traced before."""

    def written(model, example, path, **options):
        graph.save(ir.load(traced / "model.onnx"), path)
        return {}

    monkeypatch.setattr(export, "export_graph", written)
    return tracing


def refused(here, capsys, *, code, said, words="export model -o graph") -> None:
    """The command ends with this code and one message, and the output is not there."""
    assert run(words.split()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("error: ") == 1
    left = {path.name for path in here.iterdir()} - {"model"}
    assert left == ({"graph.refused"} if code == 4 else set())


def test_an_operator_that_onnx_lacks(tracing, capsys, monkeypatch):
    from transformers.models.bert.modeling_bert import BertPooler

    def branching(self, hidden):
        first = self.activation(self.dense(hidden[:, 0]))
        return first if first.sum() > 0 else -first  # a graph cannot look at a value

    monkeypatch.setattr(BertPooler, "forward", branching)
    refused(
        tracing, capsys, code=3, said="BertForSequenceClassification cannot be exported to ONNX"
    )


def test_an_operator_that_onnx_runtime_lacks(tracing, capsys, monkeypatch):
    def unknown(model, **options):
        next(node for node in model.graph if node.op_type == "Gelu").op_type = "Frobnicate"
        return {}

    monkeypatch.setattr(graph, "fuse", unknown)
    refused(tracing, capsys, code=3, said="ONNX Runtime cannot load")


def spoil(monkeypatch, change) -> None:
    """Every graph that is written has one weight changed on its way to the disk."""
    write = editing.save

    def spoilt(model, path):
        for name in (VALUE, f"{VALUE}_scale"):
            if name in model.graph.initializers:
                value = model.graph.initializers[name]
                value.const_value = ir.tensor(change(value.const_value.numpy()))
        write(model, path)

    for room in (graph, integers, export):
        monkeypatch.setattr(room, "save", spoilt)


@pytest.mark.parametrize("number_format", FORMATS)
def test_parity_beyond_its_tolerance_leaves_the_numbers(here, capsys, monkeypatch, number_format):
    words = f"export model --weights {number_format} --tolerance 1e-12 -o graph"
    refused(here, capsys, code=4, said="--tolerance moves the limit", words=words)
    report = json.loads((here / "graph.refused/report.json").read_text())
    assert report["command"] == f"compressor {words}"
    assert (report["kind"], report["code"]) == ("gate", 4)
    found = report["parity"]
    assert found["error"] > found["tolerance"] == 1e-12
    assert f"{found['error']:.2e}" in report["message"]
    assert {"largest_difference", "agreement"} <= set(found)
    batches, lengths = zip(*found["shapes"], strict=True)
    assert len(set(batches)) == len(set(lengths)) == 2


@pytest.mark.parametrize("change", [lambda w: w * np.float32(1.5), lambda w: w * np.float32("nan")])
def test_the_file_is_compared_as_it_lies_on_disk(here, capsys, monkeypatch, change):
    spoil(monkeypatch, change)
    refused(here, capsys, code=4, said="the float graph differs")
    found = json.loads((here / "graph.refused/report.json").read_text())["parity"]
    assert not float(found["error"]) <= found["tolerance"]


def test_wrong_scales_of_an_int8_graph(here, capsys, monkeypatch):
    rounding = integers.quantize_product

    def wrong(weight):
        values, scale = rounding(weight)
        return values, scale * np.float32(1.7)

    monkeypatch.setattr(integers, "quantize_product", wrong)
    refused(here, capsys, code=4, said="the int8 graph differs")


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_that_is_not_free(tracing, capsys, monkeypatch, axis):
    """Of the two shapes only one is right, or none."""
    batch, length = parity.SHAPES[0]

    def example(loaded):
        ids = torch.ones(batch, length, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids * 0}

    def fixed(inputs):
        free = [torch.export.Dim("batch"), torch.export.Dim("length")]
        free[axis] = None
        return tuple(dict(enumerate(free)) for _ in inputs)

    monkeypatch.setattr("compressor.commands.export.example_inputs", example)
    monkeypatch.setattr(graph, "_dynamic_axes", fixed)
    refused(tracing, capsys, code=3, said="the graph cannot run on")


def test_a_length_that_was_traced_in(tracing, capsys, monkeypatch):
    """The axes are called free, and yet every row is computed as if it had the traced length."""
    fuse = graph.fuse

    def frozen(model, **options):
        facts = fuse(model, **options)
        norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
        axes = [editing.add_initializer(model.graph, f"c{n}", ir.tensor([n])) for n in (0, 5, 1)]
        kept = editing.insert_node(norm, "Slice", [norm.inputs[0], *axes])
        norm.replace_input_with(0, kept.outputs[0])
        return facts

    monkeypatch.setattr(graph, "fuse", frozen)
    refused(tracing, capsys, code=3, said="the graph cannot run on")


def test_nothing_to_quantize(here, capsys, monkeypatch):
    monkeypatch.setattr(integers, "find_products", lambda graph: [])
    refused(here, capsys, code=3, said="no int8 layer found")


@pytest.mark.parametrize("number_format", FORMATS)
def test_beyond_2_gb_the_weights_lie_in_a_second_file(here, capsys, monkeypatch, number_format):
    monkeypatch.setattr(editing, "EXTERNAL_DATA_BYTES", 1000)
    assert run(f"export model --weights {number_format} -o graph".split()) == 0
    files = {file.name: file.stat().st_size for file in (here / "graph").glob("model.onnx*")}
    assert set(files) == {"model.onnx", "model.onnx.data"}
    stored = onnx.load(here / "graph/model.onnx", load_external_data=False).graph.initializer
    assert {
        entry.value for t in stored for entry in t.external_data if entry.key == "location"
    } == {"model.onnx.data"}
    opened = open_checkpoint(here / "graph")
    facts = opened.steps[-1]["metrics"]
    assert facts["bytes"] == sum(files.values())
    assert facts["parity"]["error"] <= facts["parity"]["tolerance"]
    assert opened.disk_bytes > sum(files.values())
    (here / "graph/model.onnx.data").write_bytes(b"\0" * files["model.onnx.data"])
    assert run("inspect graph".split()) == 3
    assert "model.onnx.data was changed" in capsys.readouterr().err


@pytest.mark.parametrize(("int8_ms", "code"), [(4.0, 0), (6.0, 4)])
def test_int8_that_is_slower_than_float(here, capsys, monkeypatch, int8_ms, code):
    assert run("export model -o graph".split()) == 0
    assert run("export model --weights fp32 -o floats".split()) == 0
    times = {"floats": 5.0, "graph": int8_ms}

    def measured(candidates, shapes, **_):
        return {
            name: [
                {
                    **{"batch": b, "length": n, "starts_ms": [[times[name]]]},
                }
                for b, n in shapes
            ]
            for name in candidates
        }

    monkeypatch.setattr("compressor.commands.timing.measure_in_turns", measured)
    words = "benchmark graph --baseline floats --shapes 1x8,2x16 --min-speedup 1 -o report"
    assert run(words.split()) == code
    report = json.loads(
        (here / ("report.refused" if code else "report") / "report.json").read_text()
    )
    assert report["gates"][0]["passed"] is not bool(code)
    assert report["models"][1]["speedup"] == pytest.approx(5.0 / int8_ms)
    assert (here / "report").exists() is not bool(code)
