"""The verbs on a tiny model: what they write, print, refuse and leave alone."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import transformers

import tiny
from compressor.cli import run


def go(*words):
    return run([str(word) for word in words])


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file that the lineage covers, and of the lineage."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.name != "run.json"
    }


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    """A fresh working folder with links to the workshop's inputs."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "data", "teacher"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


def test_finetune_keeps_label_names_and_learns(workshop):
    config = json.loads((workshop / "teacher" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["negative", "positive"]
    record = json.loads((workshop / "teacher" / "compression.json").read_text())
    assert record["steps"][0]["metrics"]["accuracy"] > 0.8
    facts = json.loads((workshop / "teacher" / "run.json").read_text())
    assert facts["examples_per_second"] > 0
    assert any("loss" in entry for entry in facts["curve"])


def test_stdout_is_one_line_and_the_folder_reloads_plainly(here, capsys):
    assert go("distill", "teacher", "--layers", 2, "--data", "data", "--epochs", 1) == 0
    captured = capsys.readouterr()
    assert captured.out == "teacher-distill\n"
    assert "\x1b" not in captured.err
    model = transformers.AutoModelForSequenceClassification.from_pretrained("teacher-distill")
    assert model.config.num_hidden_layers == 2
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_json_result_is_one_object(here, capsys):
    assert go("prune", "teacher", "--method", "magnitude", "--json", "-o", "p") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == "p"
    assert found["metrics"]["sparsity"] == pytest.approx(0.5)


def test_json_errors_are_objects_on_stderr(here, capsys):
    assert go("prune", "nowhere", "--method", "magnitude", "--json") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    error = json.loads(captured.err.strip().splitlines()[-1])["error"]
    assert (error["code"], error["kind"]) == (3, "input")
    assert "nowhere" in error["message"]


def test_same_command_same_bytes(here):
    words = ["--layers", "2", "--data", "data", "--epochs", "1", "--lr", "1e-3", "-o"]
    for place in ("one", "two"):
        (here / place).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here / place)
            for name in ("data", "teacher"):
                Path(name).symlink_to(here / name)
            assert go("distill", "teacher", *words, "student") == 0
    first, second = (contents(here / place / "student") for place in ("one", "two"))
    assert first == second


def test_the_lineage_holds_no_path_clock_or_host(here):
    assert go("prune", here / "teacher", "--method", "magnitude", "-o", here / "out") == 0
    text = (here / "out" / "compression.json").read_text()
    assert str(here) not in text
    assert "/tmp" not in text
    steps = json.loads(text)["steps"]
    assert [step["verb"] for step in steps] == ["finetune", "prune"]
    assert steps[1]["command"] == "compressor prune teacher --method magnitude -o out"


def test_an_existing_output_needs_force_and_inputs_are_never_replaced(here, capsys):
    before = contents(here / "teacher")
    assert go("prune", "teacher", "--method", "magnitude", "-o", "p") == 0
    assert go("prune", "teacher", "--method", "magnitude", "-o", "p") == 3
    assert "--force" in capsys.readouterr().err
    assert go("prune", "teacher", "--method", "magnitude", "-o", "p", "--force") == 0
    assert go("prune", "teacher", "--method", "magnitude", "-o", "teacher", "--force") == 3
    assert contents(here / "teacher") == before
    assert not list(here.glob(".*partial*"))


def test_reuse_skips_what_is_done_and_redoes_what_changed(here, capsys):
    words = ["prune", "teacher", "--method", "magnitude", "-o", "p", "--reuse"]
    assert go(*words) == 0
    stamp = (here / "p" / "model.safetensors").stat().st_mtime_ns
    assert go(*words) == 0
    assert "already made" in capsys.readouterr().err
    assert (here / "p" / "model.safetensors").stat().st_mtime_ns == stamp
    assert go(*words, "--sparsity", 0.7) == 3  # another command: the output is in the way
    assert go(*words, "--sparsity", 0.7, "--force") == 0
    assert (here / "p" / "model.safetensors").stat().st_mtime_ns != stamp


def test_dry_run_prints_the_plan_and_writes_nothing(here, capsys):
    assert go("distill", "teacher", "--data", "data", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["output"] == "teacher-distill"
    assert plan["epochs"] == 3.0
    assert not (here / "teacher-distill").exists()


def test_gradual_pruning_reaches_its_sparsity_on_disk(here):
    words = [
        "--sparsity",
        "0.7",
        "--data",
        "data",
        "--epochs",
        "2",
        "--teacher",
        "teacher",
        "-o",
        "sparse",
    ]
    assert go("prune", "teacher", *words) == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained("sparse")
    for layer in model.bert.encoder.layer:
        weight = layer.intermediate.dense.weight
        assert int((weight == 0).sum()) == int(0.7 * weight.numel())
    steps = json.loads((here / "sparse" / "compression.json").read_text())["steps"]
    assert steps[-1]["options"]["objective"][0]["method"] == "soft_labels"
    assert set(steps[-1]["inputs"]) == {"model", "teacher", "data"}


def test_a_student_of_its_own_is_taken_and_another_tokenizer_refused(here, capsys):
    tiny.checkpoint(here / "small", num_hidden_layers=1)
    words = ["distill", "teacher", "--data", "data", "--epochs", 1, "--student"]
    assert go(*words, "small", "-o", "s") == 0
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["zebra"])
    model = tiny.model(num_hidden_layers=1)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(here / "other")
    tokenizer.save_pretrained(here / "other")
    assert go(*words, "other", "--method", "minilm_v2", "-o", "t") == 3
    assert "zebra" in capsys.readouterr().err


def test_a_teacher_without_a_head_is_refused_before_torch_is_needed(here, capsys):
    tiny.model(head="AutoModel", labels=None).save_pretrained(here / "bare")
    tiny.tokenizer().save_pretrained(here / "bare")
    assert go("distill", "bare", "--data", "data") == 3
    assert "compressor finetune" in capsys.readouterr().err


def test_a_missing_tensor_is_refused_not_invented(here, capsys):
    model = tiny.model()
    state = model.state_dict()
    state.pop("bert.embeddings.LayerNorm.weight")
    model.save_pretrained(here / "holed", state_dict=state)
    tiny.tokenizer().save_pretrained(here / "holed")
    assert go("prune", "holed", "--method", "magnitude") == 3
    assert "bert.embeddings.LayerNorm.weight" in capsys.readouterr().err
    assert not (here / "holed-prune").exists()


def test_bfloat16_checkpoints_stay_bfloat16(here):
    tiny.model().to(torch.bfloat16).save_pretrained(here / "half")
    tiny.tokenizer().save_pretrained(here / "half")
    assert go("prune", "half", "--method", "magnitude", "-o", "p") == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained("p")
    assert model.dtype == torch.bfloat16
    weight = model.bert.encoder.layer[0].output.dense.weight
    assert int((weight == 0).sum()) == weight.numel() // 2


def write_rows(folder, name, rows):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_no_learning_is_said_and_can_fail_the_job(here, capsys):
    rows = tiny.rows(48)
    write_rows(here / "twisted", "train", rows)
    opposite = {"negative": "positive", "positive": "negative"}
    write_rows(here / "twisted", "validation", [{**r, "label": opposite[r["label"]]} for r in rows])
    words = ["finetune", "teacher", "--data", "twisted", "--lr", 0, "--epochs", 1, "-o", "dull"]
    assert go(*words, "--must-learn") == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert "most frequent class" in said.err
    assert "dull.refused" in said.err
    assert not (here / "dull").exists()
    report = json.loads((here / "dull.refused" / "report.json").read_text())
    assert report["metrics"]["accuracy"] < 0.5
    assert report["command"].startswith("compressor finetune teacher")

    assert go(*words, "--resume") == 0  # nothing is trained again
    assert "warning: validation accuracy" in capsys.readouterr().err
    assert (here / "dull" / "compression.json").exists()
    assert not (here / "dull.state").exists()


def test_no_learning_is_judged_for_regression_too(here, capsys):
    rows = [{"text": row["text"], "score": float(i)} for i, row in enumerate(tiny.rows(48))]
    write_rows(here / "scores", "train", rows)
    write_rows(here / "scores", "validation", rows)
    model = tiny.model(seed=0, labels=("score",))
    torch.nn.init.zeros_(model.classifier.weight)  # says the same of everything
    model.save_pretrained(here / "constant")
    tiny.tokenizer().save_pretrained(here / "constant")
    words = ["finetune", "constant", "--data", "scores", "--lr", 0, "--epochs", 1]
    assert go(*words, "--must-learn", "-o", "dull") == 4
    assert "pearson" in capsys.readouterr().err


def test_must_learn_needs_rows_to_judge_by(here, capsys):
    write_rows(here / "alone", "train", tiny.rows(48))
    assert go("finetune", "base", "--data", "alone", "--must-learn", "-o", "dull") == 2
    assert "validation" in capsys.readouterr().err


def test_divergence_exits_5_and_leaves_no_output(here, capsys):
    words = [
        "finetune",
        "base",
        "--data",
        "data",
        "--lr",
        "1e30",
        "--warmup",
        "0",
        "--clip",
        "0",
        "-o",
        "wild",
    ]
    assert go(*words) == 5
    assert "--lr" in capsys.readouterr().err
    assert not (here / "wild").exists()
    assert (here / "wild.state").is_dir()


def test_training_on_keeps_the_heads_order_and_other_classes_get_a_head_of_their_own(here):
    rows = [{"text": "great film", "label": "positive"}, {"text": "bad film", "label": "negative"}]
    (here / "two.jsonl").write_text("\n".join(json.dumps(row) for row in rows * 8))
    tiny.checkpoint(here / "reversed", labels=("positive", "negative"))
    words = ["--epochs", 1, "--lr", 1e-4]
    assert go("finetune", "reversed", "--data", "two.jsonl", *words, "-o", "same") == 0
    config = json.loads((here / "same" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["positive", "negative"]
    colours = [{"text": "great", "label": name} for name in ("red", "green", "blue")]
    (here / "three.jsonl").write_text("\n".join(json.dumps(row) for row in colours * 8))
    assert go("finetune", "reversed", "--data", "three.jsonl", *words, "-o", "other") == 0
    config = json.loads((here / "other" / "config.json").read_text())
    assert sorted(config["id2label"].values()) == ["blue", "green", "red"]


def test_overlapping_and_overlong_rows_can_be_refused(here, capsys):
    (here / "twice").mkdir()
    text = (here / "data" / "validation.jsonl").read_text()
    for split in ("train", "validation"):
        (here / "twice" / f"{split}.jsonl").write_text(text)
    words = ["finetune", "base", "--data", "twice", "--max-steps", 1, "-o"]
    assert go(*words, "a") == 0
    assert "64 validation rows stand in the training rows too" in capsys.readouterr().err
    assert go(*words, "b", "--no-overlap") == 3
    assert go(*words, "c", "--max-length", 6, "--on-long", "error") == 3
    assert "tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "prune teacher --method magnitude",
        "quantize teacher",
        "quantize teacher --method static",
        "export teacher",
        "benchmark teacher",
        "benchmark teacher --split test",
    ],
)
def test_no_overlap_is_obeyed_wherever_rows_are_scored(here, capsys, words):
    rows = tiny.rows(8, seed=5)
    other = "test" if "test" in words else "validation"
    write_rows(here / "leaking", "train", rows)
    write_rows(here / "leaking", other, [*tiny.rows(4, seed=6), rows[3]])
    assert go(*words.split(), "--data", "leaking", "--no-overlap", "-o", "out") == 3
    said = f"1 {other} rows stand in the training rows too (lines 5)"
    assert said in capsys.readouterr().err
    assert not (here / "out").exists()


def test_scored_training_rows_overlap_by_definition(here, capsys):
    words = "benchmark teacher --data data --split train --no-overlap -o out"
    assert go(*words.split()) == 2
    assert "--no-overlap does nothing" in capsys.readouterr().err


def test_rows_without_overlap_pass(here):
    words = "quantize teacher --data data --no-overlap -o int8"
    assert go(*words.split()) == 0


def last_step(folder):
    return json.loads((folder / "compression.json").read_text())["steps"][-1]


def test_a_student_of_another_shape_learns_relations_and_answers(workshop, tmp_path):
    words = f"distill {workshop}/teacher --student-layers 2 --student-hidden 16 --student-heads 2"
    training = f"--data {workshop}/data --epochs 1 -o {tmp_path}/student"
    assert run([*words.split(), *training.split()]) == 0
    step = last_step(tmp_path / "student")
    assert step["method"] == "minilm_v2+soft_labels"
    assert step["options"]["student"]["options"]["student_hidden"] == 16
    assert "accuracy" in step["metrics"]
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (2, 16)


def test_a_teacher_without_a_head_teaches_relations_alone(workshop, tmp_path):
    tiny.checkpoint(tmp_path / "bare", head="AutoModel", labels=None)
    words = f"distill {tmp_path}/bare --student-hidden 16 --student-heads 2 --epochs 1"
    for data in (f"--data {workshop}/data", f"--data {workshop}/data --task masked-lm"):
        assert run([*words.split(), *data.split(), "-o", f"{tmp_path}/out", "--force"]) == 0
        step = last_step(tmp_path / "out")
        assert step["method"] == "minilm_v2"
        assert set(step["metrics"]) == {
            "loss",
            "queries_relations",
            "keys_relations",
            "values_relations",
        }
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["architectures"] == ["BertModel"]


def test_one_shot_pruning_refuses_the_flags_of_a_training(workshop, tmp_path, capsys):
    words = f"prune {workshop}/teacher --method magnitude -o {tmp_path}/out"
    unused = "--lr 1e-3 --teacher t --with gmp --objective task --cache-hidden --epochs 2"
    assert run([*words.split(), *unused.split()]) == 2
    said = capsys.readouterr().err
    for flag in ("--lr", "--teacher", "--with", "--objective", "--cache-hidden", "--epochs"):
        assert flag in said
    assert run([*words.split(), "--max-length", "32", "--data", f"{workshop}/data"]) == 0


def test_two_teachers_are_averaged(workshop, tmp_path):
    words = f"distill {workshop}/teacher {workshop}/teacher --teacher-weights 3,1 --layers 2"
    training = f"--data {workshop}/data --epochs 1"
    assert run([*words.split(), *training.split(), "-o", f"{tmp_path}/two"]) == 0
    one = f"distill {workshop}/teacher --layers 2 {training} -o {tmp_path}/one"
    assert run(one.split()) == 0
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()  # the mean of two equal teachers
    step = last_step(tmp_path / "two")
    assert step["options"]["teacher_weights"] == [3.0, 1.0]
    assert set(step["inputs"]) == {"teacher", "teacher1", "data"}


def test_teacher_weights_must_fit(workshop, capsys):
    words = f"distill {workshop}/teacher --data {workshop}/data --teacher-weights"
    for weights in ("1,2", "0", "-1", "a", "nan"):
        assert run([*words.split(), weights]) == 2
        assert "1 numbers above 0" in capsys.readouterr().err


def test_several_teachers_cannot_be_averaged_in_hidden_states(workshop, tmp_path, capsys):
    words = f"distill {workshop}/teacher {workshop}/teacher --method tinybert --layers 2"
    words += f" --data {workshop}/data -o {tmp_path}/out"
    assert run(words.split()) == 2
    assert "attention, hidden" in capsys.readouterr().err
