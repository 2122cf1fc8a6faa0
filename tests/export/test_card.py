"""Beside a graph: a script that answers like transformers, and a card with its numbers."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.errors import InputError
from compressor.export.card import write_script

TEXTS = ["a great film", "the plot was dull and boring"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exported(head, **options):
    tiny.checkpoint("model", head=head, **options)
    assert run("export model --weights fp32 -o graph".split()) == 0


def answers(*words):
    done = subprocess.run(
        [sys.executable, "graph/infer.py", *words], capture_output=True, text=True, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def expected(head, *texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained("model")
    model = getattr(transformers, head).from_pretrained("model")
    inputs = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs), inputs, tokenizer


def test_classes_with_their_probability(here):
    exported("AutoModelForSequenceClassification")
    odds = expected("AutoModelForSequenceClassification", TEXTS)[0].logits.softmax(-1)
    for (answer, text), given, row in zip(answers(*TEXTS), TEXTS, odds, strict=True):
        name, probability = answer.split()
        assert text == given
        assert name == tiny.LABELS[int(row.argmax())]
        assert float(probability) == pytest.approx(float(row.max()), abs=2e-4)


def test_a_pair_is_one_input(here):
    exported("AutoModelForSequenceClassification")
    odds = expected("AutoModelForSequenceClassification", TEXTS[:1], TEXTS[1:])[0].logits
    ((answer, _),) = answers("--pair", *TEXTS)
    assert float(answer.split()[1]) == pytest.approx(float(odds.softmax(-1).max()), abs=2e-4)


def test_words_for_a_mask(here):
    exported("AutoModelForMaskedLM", labels=None)
    output, inputs, tokenizer = expected("AutoModelForMaskedLM", ["a [MASK] film"])
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    best = output.logits[0, place].topk(5).indices
    ((answer, _),) = answers("a [MASK] film")
    assert answer == " ".join(tokenizer.decode([int(token)]).strip() for token in best)


def test_vectors_of_a_model_without_a_head(here):
    exported("AutoModel", labels=None)
    output, inputs, _ = expected("AutoModel", TEXTS)
    mask = inputs["attention_mask"][..., None]
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    mean = torch.nn.functional.normalize(mean, dim=-1)
    found = np.array([json.loads(answer) for answer, _ in answers(*TEXTS)])
    np.testing.assert_allclose(found, mean.numpy(), atol=1e-4)


def test_without_a_text_it_says_how(here):
    exported("AutoModelForSequenceClassification")
    done = subprocess.run(
        [sys.executable, "graph/infer.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'python infer.py "a text"' in done.stderr


def test_the_card_has_the_numbers_and_the_commands(workshop, here):
    assert run(f"quantize {workshop}/teacher -o int8".split()) == 0
    assert run("export int8 -o graph".split()) == 0
    card = (here / "graph/README.md").read_text()
    steps = open_checkpoint(here / "graph").steps
    assert [step["verb"] for step in steps] == ["finetune", "quantize", "export"]
    for step in steps:
        assert f"`{step['command']}`" in card
    found = steps[-1]["metrics"]
    assert f"{found['parity']['error']:.2e}" in card
    assert f"made for | {found['cpu_preset']}" in card
    assert f"accuracy {steps[0]['metrics']['accuracy']:.4f}" in card
    assert "(negative, positive) as an ONNX graph with weights in" in card


def test_a_script_that_the_record_does_not_know_is_refused(here):
    exported("AutoModelForSequenceClassification")
    open_checkpoint(here / "graph")
    (here / "graph/other.py").write_text("")
    with pytest.raises(InputError, match="holds Python code"):
        open_checkpoint(here / "graph")
    (here / "graph/other.py").unlink()
    (here / "graph/infer.py").write_text("print(1)")
    with pytest.raises(InputError, match=r"infer\.py was changed"):
        open_checkpoint(here / "graph")
    (here / "graph/compression.json").unlink()
    with pytest.raises(InputError, match="holds Python code"):
        open_checkpoint(here / "graph")


def test_names_that_a_config_leaves_out(here):
    exported("AutoModelForSequenceClassification", labels=("LABEL_0", "LABEL_1"))
    assert "id2label" not in json.loads((here / "graph/config.json").read_text())
    ((answer, _),) = answers("a great film")
    assert answer.split()[0] in ("LABEL_0", "LABEL_1")


def encoder(folder, pooling, *more):
    """The files with which sentence-transformers says how vectors are pooled."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": pooling}))
    kinds = {"Transformer": "", "Pooling": "1_Pooling", **dict.fromkeys(more, "2")}
    modules = [{"type": f"models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')


def test_a_sentence_encoder_pools_as_its_files_say(here):
    tiny.checkpoint("model", head="AutoModel", labels=None)
    encoder(here / "model", "cls")
    assert run("export model --weights fp32 -o graph".split()) == 0
    assert {"modules.json", "1_Pooling"} <= {file.name for file in (here / "graph").iterdir()}
    open_checkpoint(here / "graph")
    short = ["a great film", "the plot was dull"]  # six tokens: what is longer is cut off
    output, _, _ = expected("AutoModel", short)
    found = np.array([json.loads(answer) for answer, _ in answers(short[0], f"{short[1]} and bad")])
    np.testing.assert_allclose(found, output.last_hidden_state[:, 0].numpy(), atol=1e-4)


def script(here, token="[PAD]", **config):
    """What an encoder's `infer.py` defines, without running it; None where there is none."""
    (here / "tokenizer.json").write_text("{}")
    (here / "config.json").write_text("{}")
    loaded = SimpleNamespace(
        task=None,
        tokenizer=SimpleNamespace(pad_token=token),
        checkpoint=SimpleNamespace(path=here),
        model=SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False, **config)),
    )
    write_script(loaded, here, 128)
    if not (here / "infer.py").exists():
        return None
    scope = {"__name__": "infer", "__file__": str(here / "infer.py")}
    exec(compile((here / "infer.py").read_text(), "infer.py", "exec"), scope)
    return scope


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("mean", [3.0, 3.0], [2.0, 2.5]),
        ("cls", [0.0, 3.0], [3.0, 4.0]),
        ("max", [6.0, 5.0], [3.0, 4.0]),
        ("lasttoken", [6.0, 1.0], [1.0, 1.0]),
    ],
)
@pytest.mark.parametrize("more", [(), ("Normalize",)])
def test_ways_of_pooling_by_hand(here, mode, first, second, more):
    encoder(here, mode, *more)
    scope = script(here)
    assert scope["LONGEST"] == 6
    values = np.array([[[0.0, 3], [3, 5], [6, 1]], [[3, 4], [1, 1], [9, 9]]])
    found = scope["pooled"](values, np.array([[1, 1, 1], [1, 1, 0]]))
    wanted = np.array([first, second])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True) if more else 1
    np.testing.assert_allclose(found, wanted)


def test_no_script_where_pooling_is_not_known(here, capsys):
    encoder(here, "mean", "Dense")
    assert script(here) is None
    assert "Dense" in capsys.readouterr().err


@pytest.mark.parametrize("token", ['"+__import__("os").abort()+"', "a\\b'c", "{}@VALUES@"])
def test_a_token_is_never_run(token, here):
    scope = script(here, token)
    assert (scope["TASK"], scope["LONGEST"], scope["PAD"]) == ("feature extraction", 128, token)


def test_a_record_of_another_tool_makes_a_card_too(here):
    tiny.checkpoint("model")
    record = {"schema": 1, "compressor": "0", "files": {}, "steps": [{"verb": "x|`y`"}]}
    (here / "model/compression.json").write_text(json.dumps(record))
    assert run("export model --weights fp16 -o graph".split()) == 0
    card = (here / "graph/README.md").read_text()
    assert "| 1 | `unknown` |" in card
    assert "with weights in fp16" in card
