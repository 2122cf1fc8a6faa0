"""`benchmark` and `export` by the command line: lineage, gates in both directions, honesty."""

import functools
import json

import numpy as np
import pytest

import tiny
from commands.measured import QUICK, go, report_of
from compressor.checkpoint.folder import open_checkpoint
from compressor.commands import landscape, timing
from compressor.commands.measure_options import MeasureOptions, shapes_for
from compressor.commands.options import parse_batches, parse_shapes
from compressor.data.dataset import open_dataset
from compressor.errors import UsageError
from compressor.measure.schema import validate_report
from compressor.model.load import load
from compressor.model.tasks import labels_of


def test_the_baseline_is_found_through_the_lineage_and_the_schema_holds(here, tmp_path, capsys):
    assert go("benchmark", here / "onnx", "--data", here / "data", *QUICK, "-o", "report") == 0
    captured = capsys.readouterr()
    assert captured.out == "report\n"
    report = report_of(tmp_path / "report")
    validate_report(report)
    assert report["baseline"] == "teacher"
    teacher, onnx = report["models"]
    assert (teacher["runtime"], onnx["runtime"]) == ("torch", "onnxruntime")
    assert onnx["compression_ratio"]["weights"] > 1.5
    assert {(row["batch"], row["length"]) for row in onnx["latency"]} == {(1, 8), (2, 16)}
    ratio, kept = onnx["compression_ratio"]["disk"], onnx["retention"]
    assert onnx["compression_to_accuracy"] == pytest.approx(ratio * kept)
    assert teacher["accuracy"]["low"] <= teacher["accuracy"]["value"] <= teacher["accuracy"]["high"]
    assert [row["part"] for row in onnx["layers"]] == [row["part"] for row in teacher["layers"]]
    assert {row["bits_per_weight"] for row in onnx["layers"][1:]} == {8}
    (trained,) = report["training"]
    assert (trained["verb"], trained["models"]) == ("finetune", ["teacher", "onnx"])
    assert trained["loss"][-1]["step"] == 120
    assert trained["metric"] == "accuracy"
    assert trained["kept_step"] in [point["step"] for point in trained["scores"]]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "onnx" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_without_data_size_and_latency_are_measured(here, tmp_path):
    assert go("benchmark", here / "teacher", here / "onnx", *QUICK, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    assert report["task"] is None
    assert all(model["accuracy"] is None and model["latency"] for model in report["models"])


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (("--max-drop", 50), 0),
        (("--min-retention", 0.5), 0),
        (("--min-compression", 0.1), 0),
        (("--max-latency-ms", 100_000), 0),
        (("--min-speedup", 0.0001), 0),
        (("--min-retention", 1.5), 4),
        (("--min-compression", 1000), 4),
        (("--max-latency-ms", 0.0001), 4),
        (("--min-speedup", 1e6), 4),
    ],
)
def test_gates_pass_and_refuse(here, tmp_path, capsys, gate, code):
    words = ["benchmark", here / "onnx", "--data", here / "data", *QUICK, "-o", "report", *gate]
    assert go(*words) == code
    captured = capsys.readouterr()
    if code:
        assert gate[0] in captured.err
        assert captured.out == ""
        assert not (tmp_path / "report").exists()
        assert report_of(tmp_path / "report.refused")["gates"][0]["passed"] is False
    else:
        assert report_of(tmp_path / "report")["gates"][0]["passed"] is True


def test_accuracy_gates_need_rows_and_say_so_at_once(here, capsys):
    assert go("benchmark", here / "onnx", "--max-drop", 1, "-o", "report") == 3
    assert "--data" in capsys.readouterr().err


def test_models_of_other_classes_are_not_compared(here, tmp_path, capsys):
    tiny.checkpoint(tmp_path / "other", labels=("positive", "negative"))
    words = ["benchmark", here / "teacher", "other", "--baseline", here / "teacher"]
    assert go(*words, "--data", here / "data", "-o", "report") == 3
    assert "negative, positive" in capsys.readouterr().err


def test_the_accuracy_of_the_graph_is_that_of_the_checkpoint(here, tmp_path):
    words = [here / "int8", here / "onnx", "--data", here / "data", *QUICK, "-o", "report"]
    assert go("benchmark", *words) == 0
    scores = [model["accuracy"]["value"] for model in report_of(tmp_path / "report")["models"]]
    assert scores[1] == pytest.approx(scores[2], abs=0.05)


def test_the_graph_holds_the_checkpoints_own_integers(here):
    import onnx
    from onnx import numpy_helper

    from compressor.checkpoint.folder import open_checkpoint
    from compressor.model.integers import read_integers

    graph = onnx.load(here / "onnx" / "model.onnx").graph
    stored = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    blocks = [
        array.astype(np.int16) - (128 if array.dtype == np.uint8 else 0)
        for array in stored
        if array.dtype in (np.int8, np.uint8) and array.ndim == 2
    ]
    columns = {column.tobytes() for block in blocks for column in np.ascontiguousarray(block.T)}
    layers = read_integers(open_checkpoint(here / "int8"))
    assert layers
    for name, layer in layers.items():
        for row in layer.values.astype(np.int16):
            assert row.tobytes() in columns, name


def test_a_failed_parity_exits_4_and_leaves_the_numbers(here, tmp_path, capsys):
    assert go("export", here / "int8", "--tolerance", 1e-9, "-o", "strict") == 4
    captured = capsys.readouterr()
    assert "parity" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "strict").exists()
    assert report_of(tmp_path / "strict.refused")["kind"] == "gate"


def test_what_cannot_be_exported_twice_or_quantized_again(here, capsys):
    assert go("export", here / "onnx", "-o", "x") == 3
    assert go("quantize", here / "int8", "-o", "x") == 3
    assert "teacher" in capsys.readouterr().err
    assert go("export", here / "int8", "--weights", "fp32", "-o", "x") == 3


def test_shapes():
    assert parse_shapes("1x32, 8x64", "--shapes") == [(1, 32), (8, 64)]
    assert parse_batches("1, 8", "--shapes") == [(1, 1), (8, 1)]
    for wrong in ("1x32", "0", "one", ""):
        with pytest.raises(UsageError, match="expected batches such as 1,8"):
            parse_batches(wrong, "--shapes")


def test_shapes_that_nobody_named(here, tmp_path):
    bert, vit = (open_checkpoint(path) for path in (here / "teacher", tiny.vit(tmp_path / "vit")))
    assert shapes_for([bert], MeasureOptions()) == [(1, 32), (1, 128), (8, 64)]
    assert shapes_for([vit], MeasureOptions()) == [(1, 1), (8, 1)]


def test_inspect_shows_bits_zeros_and_lineage(here, capsys):
    assert go("inspect", here / "onnx", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runtime"] == "onnxruntime"
    assert [step["verb"] for step in found["lineage"]] == ["finetune", "quantize", "export"]
    assert all(8 in row["bits"] for row in found["layers"] if row["part"] != "outside the layers")
    assert go("inspect", here / "int8") == 0
    shown = capsys.readouterr().out
    assert "negative, positive" in shown
    assert "compressor quantize teacher" in shown


def test_rows_that_are_classified_differently_are_written(here, tmp_path, capsys):
    assert go("prune", here / "teacher", "--method", "magnitude", "--sparsity", 0.9, "-o", "p") == 0
    words = ["benchmark", "p", "--baseline", here / "teacher", "--data", here / "data", *QUICK]
    assert go(*words, "--disagreements", "rows.jsonl", "-o", "report") == 0
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    model = report_of(tmp_path / "report")["models"][1]
    assert len(lines) == round((1 - model["paired"]["agreement"]) * model["accuracy"]["n"]) > 0
    for line in lines:
        assert line["predictions"]["teacher"] != line["predictions"]["p"]
        assert {line["label"], *line["predictions"].values()} <= set(tiny.LABELS)
    assert model["paired"]["difference"] * 100 == pytest.approx(-model["drop"])
    assert go(*words, "--disagreements", "rows.jsonl", "-o", "again") == 3
    assert go("benchmark", "p", *QUICK, "--disagreements", "other.jsonl", "-o", "again") == 2


@pytest.mark.parametrize(("limit", "code"), [(50, 0), (-50, 4)])
def test_gates_are_written_for_a_ci_server(here, tmp_path, limit, code):
    words = ["benchmark", here / "onnx", "--data", here / "data", *QUICK, "-o", "report"]
    assert go(*words, "--max-drop", limit, "--junit", "gates.xml") == code
    text = (tmp_path / "gates.xml").read_text()
    assert ("<failure" in text) == bool(code)
    folder = tmp_path / ("report.refused" if code else "report")
    assert "| onnx |" in (folder / "report.md").read_text()


def test_folders_of_one_name_keep_their_weights_apart(here, tmp_path):
    tiny.checkpoint(tmp_path / "b" / "teacher")
    assert go("benchmark", here / "teacher", "b/teacher", *QUICK, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    weights = report["inputs"]["models"]
    assert list(weights) == [model["name"] for model in report["models"]]
    assert len(set(weights.values())) == 2


def test_folders_of_one_name_and_one_parents_name_are_all_measured(here, tmp_path):
    for seed, layers in (("s0", 6), ("s1", 2)):
        tiny.checkpoint(tmp_path / seed / "bert" / "final", num_hidden_layers=layers)
    paths = ["s0/bert/final", "s1/bert/final"]
    gates = ["--min-compression", 1.01]
    words = [*paths, "--baseline", here / "teacher", *gates]
    assert go("benchmark", *words, *QUICK, "-o", "report") == 4
    report = report_of(tmp_path / "report.refused")
    assert [model["name"] for model in report["models"]] == ["teacher", *paths]
    assert [gate["passed"] for gate in report["gates"]] == [False, True]
    assert go("benchmark", paths[1], "--baseline", paths[0], *QUICK, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    assert [model["name"] for model in report["models"]] == paths
    assert report["baseline"] == paths[0]


def test_a_folder_given_twice_is_refused_at_once(here, tmp_path, capsys):
    words = [here / "onnx", here / "onnx" / ".." / "onnx", *QUICK]
    assert go("benchmark", *words, "-o", "report") == 3
    assert "are the same folder" in capsys.readouterr().err
    assert go("benchmark", here / "teacher", "--baseline", here / "teacher", "--dry-run") == 0


def test_perplexities_over_other_tokens_are_not_compared_and_no_gate_judges_them(
    here, tmp_path, capsys
):
    from tokenizers import Regex, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    for name in ("words", "letters"):
        tiny.checkpoint(tmp_path / name, "gpt2", head="AutoModelForCausalLM", labels=None)
    core = tiny.tokenizer().backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[a-z]"), "isolated")
    letters = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]")
    letters.save_pretrained(tmp_path / "letters")
    words = ["letters", "--baseline", "words", "--data", here / "data", "--task", "causal-lm"]
    assert go("benchmark", *words, *QUICK, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    own = report["models"][1]
    assert own["accuracy"]["tokens"] > report["models"][0]["accuracy"]["tokens"] > 0
    assert (own["drop"], own["retention"], own["compression_to_accuracy"]) == (None, None, None)
    assert own["paired"] is None
    assert not own["pareto"]
    assert "another tokenizer cuts the same rows into other tokens" in report["findings"][0]
    assert report["summary"].startswith("No candidate has an accuracy that can be compared")
    for gate in ("--max-drop", "--min-retention"):
        capsys.readouterr()
        assert go("benchmark", *words, *QUICK, gate, 1, "-o", "gated") == 3
        assert f"{gate} cannot be judged: perplexity of letters" in capsys.readouterr().err
    words[2] = "report"  # the stored report remembers its tokens
    assert go("benchmark", *words, *QUICK, "-o", "again") == 0
    assert report_of(tmp_path / "again")["models"][1]["drop"] is None


def test_two_reports_of_one_teacher_are_compared(here, tmp_path, capsys):
    for name, seed in (("first", 1), ("second", 2)):
        words = [here / "onnx", "--data", here / "data", *QUICK, "--seed", seed]
        assert go("benchmark", *words, "-o", name) == 0
    assert go("compare", "first", "second", "-o", "both") == 0
    found = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert [each["agree"] for each in found["same_weights"]] == [True, True]
    assert found["comparable"] == ["accuracy", "drop", "disk", "compression_ratio"]
    for entry, name in zip(found["reports"], ("first", "second"), strict=True):
        for shown, model in zip(entry["models"], report_of(tmp_path / name)["models"], strict=True):
            assert shown["speedup"] == model["speedup"]
            assert shown["p50_ms"] == model["latency"][0]["p50_ms"]


def test_junit_without_gates_is_refused(here, tmp_path, capsys):
    words = [here / "onnx", *QUICK, "--min-compression", 1, "--junit", tmp_path, "-o", "report"]
    assert go("benchmark", *words) == 3
    assert "is a folder" in capsys.readouterr().err
    assert go("benchmark", here / "onnx", *QUICK, "--junit", "gates.xml", "-o", "report") == 2
    assert "there is none" in capsys.readouterr().err


def test_start_memory_and_packed_size_are_measured_and_a_copy_is_as_fast(here, tmp_path):
    assert go("benchmark", here / "onnx", *QUICK, "--starts", 2, "-o", "report") == 0
    teacher, onnx = report_of(tmp_path / "report")["models"]
    for model in (teacher, onnx):
        assert model["open_ms"] > 0
        assert model["first_ms"] > 0
        assert model["peak_memory_bytes"] > 10_000_000
    assert onnx["speedup_low"] <= onnx["speedup"] <= onnx["speedup_high"]
    assert teacher["speedup_low"] is None
    assert 0 < onnx["size"]["zstd"] < onnx["size"]["disk"]


def test_opening_calls_nothing_and_reads_no_tokenizer(here, tmp_path, monkeypatch, capfd):
    from transformers import AutoTokenizer, BertForSequenceClassification

    from compressor.commands.candidates import open_calls

    calls, forward = [], BertForSequenceClassification.forward

    @functools.wraps(forward)
    def counted(*inputs, **named):
        calls.append(1)
        return forward(*inputs, **named)

    monkeypatch.setattr(BertForSequenceClassification, "forward", counted)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", None)
    for name in ("teacher", "int8"):
        calls.clear()
        prepare = open_calls(open_checkpoint(here / name), 1, "cpu", 100, "fp32")
        assert calls == []
        assert prepare(2, 8)().shape == (2, 2)
        assert calls == [1]
    assert "%|" not in capfd.readouterr().err


def test_a_decoder_that_classifies_is_timed_without_a_padding_token(tmp_path):
    from compressor.commands.candidates import open_calls

    folder = tiny.checkpoint(tmp_path / "gpt2", "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    call = open_calls(open_checkpoint(folder), 1, "cpu", 100, "fp32")(2, 8)
    assert call().shape == (2, 2)


def test_growth_is_measured_beside_the_matrix_products(here, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "SCALING_ROUNDS", 3)
    monkeypatch.setattr(timing, "SCALING_SECONDS", 0.2)
    words = ["benchmark", here / "onnx", "--scaling", *QUICK, "-o", "report"]
    assert go(*words) == 0
    for model in report_of(tmp_path / "report")["models"]:
        rows = model["scaling"]["rows"]
        assert {row["batch"] for row in rows} == {1, 4, 16}
        assert min(row["share"] for row in rows) > 0
        assert all(row["share"] == row["products_ms"] / row["p50_ms"] for row in rows)
        assert set(model["scaling"]["fit"]) == {"fixed_ms", "token_ms", "pair_ms", "error"}
    assert "<h2>Growth</h2>" in (tmp_path / "report/report.html").read_text()


def test_growth_of_a_model_of_few_positions(here, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "SCALING_ROUNDS", 3)
    monkeypatch.setattr(timing, "SCALING_SECONDS", 0.2)
    tiny.checkpoint(tmp_path / "short", max_position_embeddings=12)
    assert go("benchmark", "short", "--scaling", *QUICK, "-o", "report") == 0
    (model,) = report_of(tmp_path / "report")["models"]
    assert {row["length"] for row in model["scaling"]["rows"]} == {3, 6, 12}


def test_the_landscape_of_float_models_is_drawn_on_the_same_rows(here, tmp_path, capsys):
    tiny.checkpoint(tmp_path / "random", num_hidden_layers=4)
    words = [here / "teacher", "random", here / "int8", "--data", here / "data", *QUICK]
    words += ["--baseline", here / "teacher"]
    flags = ["--landscape", "--landscape-rows", 16, "--landscape-grid", 5]
    assert go("benchmark", *words, *flags, "-o", "report") == 0
    assert "integers have no smooth landscape" in capsys.readouterr().err
    models = {m["name"]: m["landscape"] for m in report_of(tmp_path / "report")["models"]}
    assert models["int8"] is None
    for name in ("teacher", "random"):
        found = models[name]
        assert found["rows"] == found["hessian_rows"] == 16
        middle = found["surface"][2][2]
        assert [line[2] for line in found["lines"]] == pytest.approx([middle] * 3, rel=1e-5)
        assert found["adaptive_worst"] > 0
        assert np.isfinite([found[k] for k in ("worst", "average", "eigenvalue", "trace")]).all()
    assert models["teacher"]["between"] is None
    way = models["random"]["between"]  # at -0.5, 0, 0.5, 1 and 1.5
    assert way["losses"][1] == pytest.approx(models["teacher"]["surface"][2][2], rel=1e-4)
    assert way["losses"][3] == pytest.approx(models["random"]["surface"][2][2], rel=1e-4)
    assert "<h2>Loss landscape</h2>" in (tmp_path / "report/report.html").read_text()


def test_rows_of_a_landscape_are_spread_over_the_split(here):
    checkpoint = open_checkpoint(here / "teacher")
    loaded = load(checkpoint, "text-classification")
    dataset = open_dataset(str(here / "data"), model_labels=labels_of(checkpoint))
    labels = [row.label for row in dataset.rows("validation")]
    for count in (len(labels) // 2 + 3, 7):
        batches = landscape.rows_of(loaded, dataset, "validation", rows=count, max_length=32)
        found = sorted(label for batch in batches for label in batch["labels"].tolist())
        places = np.linspace(0, len(labels) - 1, count).round().astype(int)
        assert found == sorted(labels[place] for place in places)


def test_a_landscape_without_rows_is_refused_at_once(here, capsys):
    assert go("benchmark", here / "teacher", "--landscape", "-o", "report") == 2
    assert "--data" in capsys.readouterr().err


@pytest.fixture
def broken(here, tmp_path):
    """The teacher with outputs past the largest number, and one that always says the same."""
    import transformers

    for name, size, bias in (("dead", 3e38, 0.0), ("constant", 0.1, 1e4)):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(here / "teacher")
        model.classifier.weight.data.sign_().mul_(size)
        model.classifier.bias.data[1] += bias
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    return here


def test_dead_and_one_class_models_are_called_out_first(broken, tmp_path):
    words = ["benchmark", broken / "onnx", "dead", "constant", "--baseline", broken / "teacher"]
    words += ["--landscape", "--landscape-rows", 8, "--landscape-grid", 5]
    assert go(*words, "--data", broken / "data", *QUICK, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    dead = next(model["landscape"] for model in report["models"] if model["name"] == "dead")
    assert dead["surface"] == [[None] * 5] * 5
    found = report["findings"]
    assert found[0] == (
        "dead gave NaN or infinite outputs for 64 of 64 rows: the model is broken and has no "
        "accuracy."
    )
    assert found[1].startswith("constant answers 'positive' for every one of 64 rows")
    assert report["summary"].startswith("onnx is ")
    lines = (tmp_path / "report/report.md").read_text().splitlines()
    assert lines[2:4] == [f"- {sentence}" for sentence in found[:2]]


def test_models_compute_in_another_number_format(here, tmp_path):
    words = ["benchmark", here / "teacher", "--data", here / "data", "--precision", "bf16"]
    assert go(*words, *QUICK, "-o", "report") == 0
    report = report_of(tmp_path / "report")
    (model,) = report["models"]
    assert (model["precision"], model["accuracy"]["not_finite"]) == ("bf16", 0)
    assert model["accuracy"]["value"] > 0.9
    assert report["machine"]["gpu"] is None
