"""Opening: whole folders open with the right facts, every fault of the list is refused in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tiny
from checkpoint import folders
from checkpoint.folders import change_json, edit, get_json, put_json
from compressor import __version__
from compressor.checkpoint.folder import open_checkpoint, refuse_quantized
from compressor.checkpoint.lineage import make_step, write_lineage
from compressor.errors import InputError, MachineError

QUERY = "bert__encoder__layer__1__attention__self__query__weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def cut_weights(folder):
    data = weights(folder).read_bytes()
    weights(folder).write_bytes(data[:-100])


def only_pickle(folder):
    weights(folder).rename(folder / "pytorch_model.bin")


def record(folder, **changes):
    write_lineage(folder, [step()])
    change_json(folder / "compression.json", **changes)


def step(**changes):
    made = make_step("finetune", "", {}, 0, {}, "compressor finetune m")
    return {**made, **changes}


def change_after_record(folder):
    write_lineage(folder, [step()])
    edit(folder, classifier__bias=np.ones(2, np.float32))


def config_with(**changes):
    return lambda folder: change_json(folder / "config.json", **changes)


def config_bytes(data: bytes):
    return lambda folder: (folder / "config.json").write_bytes(data)


def weight_bytes(data: bytes):
    return lambda folder: weights(folder).write_bytes(data)


def remove(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


# number of the case in reliability.md, how to break a whole folder, words of the message
FAULTS = {
    "3-no-config": (remove("config.json"), ["tokenizer.json", "missing: config.json"]),
    "3-no-weights": (remove("model.safetensors"), ["config.json", "missing: weights"]),
    "3-no-tokenizer": (remove("tokenizer.json"), ["missing: a tokenizer", "model.safetensors"]),
    "3-empty": (
        remove("config.json", "model.safetensors", "tokenizer.json"),
        ["it is empty", "config.json", "weights"],
    ),
    "4-truncated": (config_bytes(b'{"model_type": "bert",\n "hid'), ["line 2, column 2", "cut"]),
    "4-utf16": (config_bytes('{"a": 1}'.encode("utf-16")), ["UTF-16"]),
    "4-latin1": (config_bytes(b'{\n"a": "\xe9"}'), ["not UTF-8", "0xe9", "line 2"]),
    "4-list": (config_bytes(b"[1, 2]"), ["holds a list", "expected an object", "column 1"]),
    "4-empty": (config_bytes(b""), ["config.json is empty"]),
    "4-nan": (config_bytes(b'{"a": NaN}'), ["NaN is not JSON"]),
    "4-twice": (config_bytes(b'{"a": 1, "a": 2}'), ["the key a stands there twice"]),
    "4-deep": (config_bytes(b'{"a":' + b"[" * 100_000), ["too deeply"]),
    "4-digits": (config_bytes(b'{"a": ' + b"9" * 5_000 + b"}"), ["5000 digits"]),
    "4-surrogate": (config_bytes(b'{"a": "\\ud800"}'), ["half of a character"]),
    "5-missing-type": (config_with(model_type=None), ["model_type is missing", "roberta"]),
    "5-unknown-type": (config_with(model_type="bart2"), ["bart2", "known: bert, roberta"]),
    "5-type-number": (config_with(model_type=3), ["model_type is 3"]),
    "6-truncated": (cut_weights, ["holds", "its header promises", "cut off"]),
    "6-in-header": (
        lambda folder: weights(folder).write_bytes(weights(folder).read_bytes()[:300]),
        ["holds 300 bytes", "header alone needs", "cut off"],
    ),
    "7-empty": (weight_bytes(b""), ["model.safetensors is empty (0 bytes)"]),
    "7-html": (weight_bytes(b"\n<!DOCTYPE html><html>"), ["web page"]),
    "7-lfs": (weight_bytes(LFS), ["git-lfs pointer"]),
    "7-lfs-tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_bytes(LFS),
        ["tokenizer.json is a git-lfs pointer"],
    ),
    "7-zip": (weight_bytes(b"PK\x03\x04" + b"\0" * 50), ["zip archive", "torch.save"]),
    "7-short": (weight_bytes(b"\x01\x02"), ["holds 2 bytes", "needs at least 8"]),
    "9-trailing": (
        lambda folder: weights(folder).write_bytes(weights(folder).read_bytes() + b"x" * 7),
        ["its header promises", "too many"],
    ),
    "11-missing": (
        lambda folder: edit(folder, **{QUERY: None}),
        ["missing: bert.encoder.layer.1.attention.self.query.weight (1 in all)"],
    ),
    "11-missing-layer": (
        lambda folder: change_json(folder / "config.json", num_hidden_layers=3),
        ["missing: bert.encoder.layer.2.attention.output.dense.bias", "(12 in all)"],
    ),
    "11-depth-bomb": (
        config_with(num_hidden_layers=10**15),
        ["missing", f"{12 * (10**15 - 2)} in all"],
    ),
    "11-no-words": (
        lambda folder: edit(folder, bert__embeddings__word_embeddings__weight=None),
        ["missing: no embeddings.word_embeddings.weight"],
    ),
    "12-layers": (config_with(num_hidden_layers=1), ["holds 2 layers", "num_hidden_layers 1"]),
    "13-labels": (
        config_with(id2label={"0": "a", "1": "b", "2": "c"}),
        ["head has 2 rows, config lists 3 labels: a, b, c"],
    ),
    "13-label-map": (config_with(id2label={"0": "a", "2": "b"}), ["id2label", "0, 1, 2"]),
    "13-label-list": (config_with(id2label=["a", "b"]), ["id2label", "expected a map"]),
    "13-heads": (
        config_with(num_attention_heads=3),
        ["num_attention_heads 3 does not divide hidden_size 8"],
    ),
    "13-hidden": (config_with(hidden_size=16), ["word_embeddings", "[20, 8]", "hidden_size 16"]),
    "13-words": (config_with(vocab_size=30), ["word_embeddings", "[20, 8]", "vocab_size 30"]),
    "13-positions": (
        config_with(max_position_embeddings=512),
        ["position_embeddings", "[12, 8]", "max_position_embeddings 512"],
    ),
    "13-uneven": (
        lambda folder: edit(folder, **{QUERY: np.ones((4, 8), np.float32)}),
        ["layer.1.attention.self.query.weight has shape [4, 8]", "[8, 8]"],
    ),
    "13-text-size": (config_with(hidden_size="8"), ["hidden_size is 8", "whole number"]),
    "13-negative": (config_with(num_attention_heads=-2), ["num_attention_heads is -2"]),
    "14-nan": (
        lambda folder: edit(folder, classifier__bias=np.array([np.nan, np.inf], np.float32)),
        ["not finite", "classifier.bias (1 NaN, 1 infinite of 2)"],
    ),
    "15-int8": (
        lambda folder: edit(folder, **{QUERY: np.ones((8, 8), np.int8)}),
        ["int8 values without scales", "query.weight (1 in all)"],
    ),
    "16-pickle": (only_pickle, ["pytorch_model.bin", "pickle can run code"]),
    "16-gguf": (
        lambda folder: weights(folder).rename(folder / "model.gguf"),
        ["GGUF weights (model.gguf)", "expected model.safetensors"],
    ),
    "16-adapter": (
        lambda folder: put_json(folder / "adapter_config.json", {}),
        ["an adapter", "not a whole model"],
    ),
    "17-auto-map": (config_with(auto_map={"AutoModel": "m.M"}), ["key auto_map", "run code"]),
    "17-deep": (
        config_with(text_config={"list": [{"trust_remote_code": True}]}),
        ["text_config.list[0].trust_remote_code"],
    ),
    "17-kernel": (
        config_with(_attn_implementation_internal="evil/kernel"),
        ["_attn_implementation_internal", "kernel"],
    ),
    "17-kernel-public": (config_with(attn_implementation="a/b"), ["attn_implementation"]),
    "17-other-weights": (
        config_with(transformers_weights="pytorch_model.bin"),
        ["transformers_weights", "another file"],
    ),
    "17-tokenizer": (
        lambda folder: put_json(folder / "tokenizer_config.json", {"auto_map": {}}),
        ["tokenizer_config.json holds the key auto_map"],
    ),
    "17-python": (
        lambda folder: (folder / "modeling_x.py").write_text(""),
        ["Python code (modeling_x.py)"],
    ),
    "18-newer": (
        lambda folder: record(folder, schema=2, compressor="9.1.0"),
        ["schema 2", "compressor 9.1.0", f"this is compressor {__version__}", "reads schema 1"],
    ),
    "18-damaged": (lambda folder: record(folder, steps={}), ["compression.json is damaged"]),
    "18-outside": (
        lambda folder: record(folder, files={"../x": {"size": 1, "sha256": "0"}}),
        ["compression.json is damaged", "inside the folder"],
    ),
    "20-changed": (
        change_after_record,
        ["model.safetensors was changed", "its record says sha256:", "found sha256:"],
    ),
    "20-gone": (
        lambda folder: [
            (folder / "vocab.txt").write_text("a"),
            write_lineage(folder, [step()]),
            (folder / "vocab.txt").unlink(),
        ],
        ["vocab.txt was changed", "found nothing"],
    ),
    "21-fifo": (
        lambda folder: [(folder / "config.json").unlink(), os.mkfifo(folder / "config.json")],
        ["config.json is not a regular file"],
    ),
    "21-dangling": (
        lambda folder: [weights(folder).unlink(), weights(folder).symlink_to("gone")],
        ["model.safetensors is a link to nothing"],
    ),
    "21-folder-as-file": (
        lambda folder: [weights(folder).unlink(), weights(folder).mkdir()],
        ["model.safetensors is not a regular file"],
    ),
    "quantized-elsewhere": (
        config_with(quantization_config={"quant_method": "gptq"}),
        ["quantized by gptq", "compressed-tensors"],
    ),
    "quantized-status": (
        config_with(quantization_config={**folders.QUANTIZATION, "quantization_status": "frozen"}),
        ["quantization_status is frozen", "without their scales"],
    ),
    "quantized-bitmask": (
        config_with(
            quantization_config={
                **folders.QUANTIZATION,
                "sparsity_config": {"format": "sparse-bitmask"},
            }
        ),
        ["sparse-bitmask", "random numbers"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refused_in_words(name, folder):
    break_it, words = FAULTS[name]
    break_it(folder)
    before = {path.name for path in folder.parent.iterdir()}
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    assert time.perf_counter() - start < 2  # the bare stack takes up to 46 s
    for word in words:
        assert word in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.where
    assert {path.name for path in folder.parent.iterdir()} == before


def test_whole_folder_opens_with_its_facts(folder):
    checkpoint = open_checkpoint(folder)
    assert checkpoint.name == "tiny"
    assert checkpoint.runtime == "torch"
    assert checkpoint.model_type == "bert"
    assert checkpoint.labels == ("negative", "positive")
    assert checkpoint.layers == 2
    assert checkpoint.architecture == "BertForSequenceClassification"
    assert checkpoint.quantization is None
    assert checkpoint.steps == []
    assert set(checkpoint.tensors) == set(folders.tensors())
    files = ("model.safetensors", "config.json", "tokenizer.json")
    assert checkpoint.disk_bytes == sum((folder / file).stat().st_size for file in files)


def test_a_tokenizer_without_a_limit_opens(folder):
    (folder / "tokenizer_config.json").write_text(f'{{"model_max_length": {int(1e30)}}}')
    assert open_checkpoint(folder).labels


def test_disk_counts_only_what_inference_needs(folder):
    before = open_checkpoint(folder).disk_bytes
    for name in ("README.md", "vocab.txt", "pytorch_model.bin", "run.json", "optimizer.pt"):
        (folder / name).write_text("x" * 100)
    assert open_checkpoint(folder).disk_bytes == before
    (folder / "tokenizer.json").unlink()  # now the vocabulary is needed
    assert open_checkpoint(folder).disk_bytes > before - 200


def test_labels_follow_their_ids_not_their_order(folder):
    change_json(folder / "config.json", id2label={"1": "b", "0": "a"})
    assert open_checkpoint(folder).labels == ("a", "b")


def test_two_labels_are_assumed_when_config_names_none(folder):
    change_json(folder / "config.json", id2label=None)
    assert open_checkpoint(folder).labels is None
    edit(folder, classifier__weight=np.ones((3, 8), np.float32))
    with pytest.raises(InputError, match="head has 3 rows, config lists 2 labels"):
        open_checkpoint(folder)


def test_a_head_of_another_task_is_not_held_against_the_labels(folder):
    change_json(folder / "config.json", architectures=["BertForMaskedLM"], id2label={"0": "x"})
    assert open_checkpoint(folder).labels == ("x",)


def test_sharded_folder_opens_as_one(tmp_path):
    checkpoint = open_checkpoint(folders.make_sharded(tmp_path / "m"))
    assert set(checkpoint.tensors) == set(folders.tensors())
    assert checkpoint.weights_hash.startswith("sha256:")


def test_own_model_types_may_have_uneven_layers(folder):
    edit(folder, **{QUERY: np.ones((4, 8), np.float32)})
    change_json(folder / "config.json", model_type="compressor_bert")
    assert open_checkpoint(folder).layers == 2


def test_images_need_no_tokenizer(folder):
    values = {k.replace("bert.", "vit."): v for k, v in folders.tensors().items()}
    folders.make(folder, values=values, model_type="vit")
    (folder / "tokenizer.json").unlink()
    assert open_checkpoint(folder).model_type == "vit"


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "sentencepiece.bpe.model"])
def test_other_tokenizers_will_do(name, folder):
    (folder / "tokenizer.json").unlink()
    (folder / name).write_text("<s>\n<pad>\n")  # MPNet's begins so; it is no web page
    assert open_checkpoint(folder)


def test_a_vocabulary_needs_its_merges(folder):
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    with pytest.raises(InputError, match="missing: a tokenizer"):
        open_checkpoint(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert open_checkpoint(folder)


def test_harmless_leftovers_of_other_tools_are_accepted(folder):
    edit(folder, bert__embeddings__position_ids=np.arange(12)[None])
    change_json(folder / "config.json", _attn_implementation_autoset=True)
    put_json(folder / "data_config.json", [1, 2])
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    assert open_checkpoint(folder)


def test_scan_of_values_can_be_left_out(folder):
    edit(folder, classifier__bias=np.array([np.nan, 1], np.float32))
    assert open_checkpoint(folder, scan_values=False)


def test_case_1_and_2(folder):
    with pytest.raises(InputError, match=r"does not exist.*nearest name there: .*tiny"):
        open_checkpoint(folder.parent / "tinny")
    with pytest.raises(InputError, match="is a file; expected a checkpoint folder"):
        open_checkpoint(folder / "config.json")


def test_changed_files_can_be_accepted(folder, capsys):
    change_after_record(folder)
    checkpoint = open_checkpoint(folder, accept_changed=True)
    assert checkpoint.steps[0]["verb"] == "finetune"
    assert "model.safetensors was changed" in capsys.readouterr().err


def test_a_newer_maker_is_warned_of(folder, capsys):
    write_lineage(folder, [step(versions={"compressor": "99.0.1"})])
    open_checkpoint(folder)
    assert "made by compressor 99.0.1" in capsys.readouterr().err
    write_lineage(folder, [step()])
    open_checkpoint(folder)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("what", ["config.json", "model.safetensors", "."])
def test_case_21_unreadable(what, tmp_path):
    other = 65534
    place = Path("/tmp") / f"compressor-unreadable-{os.getpid()}"
    folders.make(place)
    try:
        place.chmod(0o755)
        (place / what).chmod(0o000)
        if os.geteuid() == 0:
            os.seteuid(other)
        with pytest.raises(MachineError) as caught:
            open_checkpoint(place)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        place.chmod(0o755)
        shutil.rmtree(place)
    assert "owner" in caught.value.message
    assert "mode 0000" in caught.value.message


def test_int8_folder_opens_and_is_refused_by_other_verbs(tmp_path):
    parent = folders.make(tmp_path / "float")
    folder = folders.make_int8(tmp_path / "int8")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.quantization["format"] == "int-quantized"
    inputs = {"model": {"name": "float", "weights": open_checkpoint(parent).weights_hash}}
    write_lineage(folder, [step(verb="quantize", inputs=inputs)])
    with pytest.raises(InputError) as caught:
        refuse_quantized(open_checkpoint(folder), "prune")
    assert "prune" in caught.value.message
    assert "quantize is the last step before export" in caught.value.message
    assert f"start from {parent} (its parent in the lineage)" == caught.value.hint
    refuse_quantized(open_checkpoint(parent), "prune")


def test_int8_without_the_config_entry_is_refused(tmp_path):
    folder = folders.make_int8(tmp_path / "int8")
    config = get_json(folder / "config.json")
    del config["quantization_config"]
    put_json(folder / "config.json", config)
    with pytest.raises(InputError, match="no quantization_config"):
        open_checkpoint(folder)


def test_hub_snapshots_are_named_after_the_repository(tmp_path):
    folder = folders.make(tmp_path / "models--owner--some-model" / "snapshots" / "0a1b")
    assert open_checkpoint(folder).name == "some-model"


def test_opening_imports_neither_torch_nor_transformers(folder):
    code = (
        "import sys; from pathlib import Path; from compressor.checkpoint.folder import *;"
        "from compressor.checkpoint.facts import sizes;"
        f"c = open_checkpoint(Path({str(folder)!r})); sizes(c); c.weights_hash;"
        "print([m for m in ('torch', 'transformers', 'onnx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_inputs_stay_as_they_are(folder):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    open_checkpoint(folder)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", "SequenceClassification"),
        ("roberta", "MaskedLM"),
        ("xlm-roberta", "SequenceClassification"),
        ("camembert", "SequenceClassification"),
        ("distilbert", "SequenceClassification"),
        ("electra", "MaskedLM"),
        ("albert", "SequenceClassification"),
        ("mpnet", "SequenceClassification"),
        ("deberta", "SequenceClassification"),
        ("deberta-v2", "MaskedLM"),
        ("modernbert", "SequenceClassification"),
        ("gpt2", "CausalLM"),
        ("llama", "SequenceClassification"),
        ("mistral", "CausalLM"),
        ("qwen2", "CausalLM"),
        ("qwen3", "CausalLM"),
        ("gemma", "CausalLM"),
        ("phi", "CausalLM"),
        ("smollm3", "CausalLM"),
    ],
)
def test_what_transformers_writes_opens(family, head, tmp_path):
    from transformers import AutoConfig

    sizes = {**tiny.SIZES, "vocab_size": len(tiny.tokenizer()), "pad_token_id": 0}
    if family in ("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3"):
        sizes |= {"num_key_value_heads": 2, "head_dim": 8}
    if family == "phi":
        sizes |= {"num_key_value_heads": 4}
    import transformers

    config = AutoConfig.for_model(family, num_labels=3, **sizes)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.layers == 2
    assert checkpoint.model_type == family
