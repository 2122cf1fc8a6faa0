import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.shards import read_tensors
from compressor.cli import run
from compressor.errors import InputError
from compressor.methods.transforms import dynamic, static
from compressor.model.dequantized import dequantize, load_dequantized
from compressor.model.integers import read_integers
from compressor.model.load import quiet_libraries
from compressor.model.quantized import (
    attach,
    is_quantized,
    save_quantized,
)
from quantized_weights import quantized_weights

FAMILIES = ("bert", "distilbert", "roberta", "llama")
METHODS = ("dynamic", "static", "static-symmetric")
QUERY = "bert.encoder.layer.0.attention.self.query"
INPUTS = {
    "input_ids": torch.tensor([[7, 20, 33, 8, 51], [9, 41, 5, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}

# What a user has: transformers, and compressed-tensors installed. Never compressor.
PLAIN_RELOAD = """
import json, sys, torch, transformers
for folder in sys.argv[1:]:
    case = torch.load(folder + "/case.pt")
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    with torch.no_grad():
        logits = model.eval()(**case["inputs"]).logits
    print(json.dumps({
        "difference": float((logits - case["logits"]).abs().max()),
        "report": [key for key, value in report.items() if value],
        "imported": [name for name in sys.modules if name.startswith("compressor")],
    }))
"""


EMPTY = SimpleNamespace(tensors={})  # of float32, as far as it says


def lively(family="bert", **options):
    """A model whose linears matter: by default their int8 error hides below 1e-5."""
    model = tiny.model(family, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(8)
    return model


def quantize(model, method="dynamic", **options):
    loaded = SimpleNamespace(model=model)
    if method == "dynamic":
        return dynamic.apply(loaded, None, dynamic.Options(**options))
    chosen = static.Options(symmetric=method == "static-symmetric", **options)
    return static.apply(loaded, [INPUTS], chosen)


def save(model, folder):
    save_quantized(SimpleNamespace(model=model, tokenizer=None, checkpoint=EMPTY), folder)


def quantized(family="bert", method="dynamic", **options):
    model = lively(family)
    quantize(model, method, **options)
    return model


def logits_of(model):
    with torch.no_grad():
        return model.eval()(**INPUTS).logits


def reload(folder, auto_class="AutoModelForSequenceClassification"):
    import transformers

    return getattr(transformers, auto_class).from_pretrained(folder, output_loading_info=True)


def stored(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_reload_gives_the_same_logits(tmp_path, family, method):
    model = lively(family)
    before = logits_of(model)
    quantize(model, method)
    expected = logits_of(model)
    save(model, tmp_path)
    again, report = reload(tmp_path)
    assert not any(report.values())
    assert (logits_of(again) - expected).abs().max() <= 1e-5
    assert (expected - before).abs().max() > 1e-4  # so 1e-5 says something


@pytest.mark.slow
def test_reload_where_compressor_was_never_imported(tmp_path):
    folders = []
    for family in FAMILIES:
        for method in METHODS:
            model = quantized(family, method)
            folder = tmp_path / f"{family}-{method}"
            save(model, folder)
            torch.save({"inputs": INPUTS, "logits": logits_of(model)}, folder / "case.pt")
            folders.append(str(folder))
    command = [sys.executable, "-c", PLAIN_RELOAD, *folders]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(folders)
    for folder, line in zip(folders, lines, strict=True):
        assert line["difference"] <= 1e-5, folder
        assert line["report"] == line["imported"] == [], folder


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bare_model_opens_too(tmp_path, family):
    """Without the head other names and even other modules are there (RobertaModel's pooler)."""
    model = quantized(family)
    save(model, tmp_path)
    bare, report = reload(tmp_path, "AutoModel")
    assert not [name for name in report["missing_keys"] if "pooler" not in name]
    with torch.no_grad():
        expected = model.base_model(**INPUTS).last_hidden_state
        assert torch.allclose(bare(**INPUTS).last_hidden_state, expected, atol=1e-5)


def test_a_language_model_keeps_its_tied_head_in_float(tmp_path):
    model = lively("bert", head="AutoModelForMaskedLM", labels=None)
    facts = quantize(model)
    assert facts["linears_float"] == ["cls.predictions.transform.dense", "cls.predictions.decoder"]
    expected = logits_of(model)
    save(model, tmp_path)
    again, _ = reload(tmp_path, "AutoModelForMaskedLM")
    assert (logits_of(again) - expected).abs().max() <= 1e-5


def test_what_is_written(tmp_path):
    model = quantized(exclude="layer.1.output")
    save(model, tmp_path)
    tensors = stored(tmp_path)
    assert tensors[f"{QUERY}.weight"].dtype == torch.int8
    assert tensors[f"{QUERY}.weight"].shape == (32, 32)
    assert tensors[f"{QUERY}.weight_scale"].dtype == torch.float32
    assert tensors[f"{QUERY}.weight_scale"].shape == (32, 1)
    assert sum(tensor.dtype == torch.int8 for tensor in tensors.values()) == 11
    assert not any("input" in name or "zero_point" in name for name in tensors)
    config = json.loads((tmp_path / "config.json").read_text())
    entry = config["quantization_config"]
    assert config["dtype"] == "float32"
    assert entry["quant_method"] == "compressed-tensors"
    assert entry["quantization_status"] == "compressed"
    assert entry["format"] == "int-quantized"
    kept = {"bert.pooler.dense", "classifier", "bert.encoder.layer.1.output.dense"}
    assert kept <= set(entry["ignore"])
    (group,) = entry["config_groups"].values()
    assert (group["weights"]["strategy"], group["weights"]["num_bits"]) == ("channel", 8)
    assert group["input_activations"]["dynamic"] is True


def test_static_grids_are_written(tmp_path):
    save(quantized(method="static"), tmp_path)
    tensors = stored(tmp_path)
    assert tensors[f"{QUERY}.input_scale"].shape == (1,)
    assert tensors[f"{QUERY}.input_zero_point"].dtype == torch.int8


@pytest.mark.parametrize("method", METHODS)
def test_saved_bytes_are_the_same_every_time(tmp_path, method):
    for name in ("one", "two"):
        save(quantized(method=method), tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = quantized(method="static")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = logits_of(model)
    save(model, tmp_path)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits_of(model), expected)


def test_a_failed_save_leaves_the_model_usable(tmp_path):
    model = quantized()
    expected = logits_of(model)
    blocked = tmp_path / "file" / "folder"
    blocked.parent.write_text("")
    with pytest.raises(OSError, match="file"):
        save(model, blocked)
    assert torch.equal(logits_of(model), expected)


def test_a_reloaded_model_is_saved_again_unchanged(tmp_path):
    save(quantized(method="static"), tmp_path / "one")
    again, _ = reload(tmp_path / "one")
    save(again, tmp_path / "two")
    one, two = stored(tmp_path / "one"), stored(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_folder_that_reloads_to_other_outputs_is_refused(tmp_path):
    model = quantized()
    groups = model.config.quantization_config["config_groups"]
    groups["group_0"]["input_activations"].update(num_bits=4)
    with pytest.raises(InputError, match="differs from the model in memory"):
        save(model, tmp_path)


def test_saving_draws_no_bars(tmp_path, capfd):
    quiet_libraries()
    save(quantized(), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_float_models_are_not_saved_as_int8(tmp_path):
    model = tiny.model()
    assert not is_quantized(model)
    with pytest.raises(InputError, match="no layer of the model is quantized"):
        save(model, tmp_path)


def test_weights_changed_after_quantization_are_refused(tmp_path):
    model = quantized()
    with torch.no_grad():
        model.get_submodule(QUERY).weight.mul_(1.01)
    with pytest.raises(InputError, match="were changed after"):
        save(model, tmp_path)


def integers_on_disk(folder):
    checkpoint = SimpleNamespace(tensors=read_tensors(folder), path=folder, model_type="bert")
    return read_integers(checkpoint)


@pytest.mark.parametrize("method", METHODS)
def test_integers_from_memory_and_from_disk_agree(tmp_path, method):
    model = quantized(method=method)
    in_memory = quantized_weights(model)
    save(model, tmp_path)
    on_disk = integers_on_disk(tmp_path)
    compressed, _ = reload(tmp_path)  # before its first forward: int8 in memory
    assert in_memory.keys() == on_disk.keys() == quantized_weights(compressed).keys()
    assert len(on_disk) == 12
    for name, linear in on_disk.items():
        assert linear.values.dtype == "int8"
        assert linear.scale.shape == (len(linear.values), 1)
        for other in (in_memory[name], quantized_weights(compressed)[name]):
            assert (linear.values == other.values).all()
            assert (linear.scale == other.scale).all()
            assert linear.activation == other.activation
    activation = on_disk[QUERY].activation
    assert activation == "dynamic" if method == "dynamic" else activation[0] > 0


def test_a_float_folder_holds_no_integers(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    assert integers_on_disk(tmp_path) == {}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight_packed": torch.zeros(4, 2, dtype=torch.int32)}, "packed"),
        ({"weight": torch.zeros(4, 8, dtype=torch.int16)}, "stored as I16"),
        ({"weight": torch.zeros(2, 8, dtype=torch.int8)}, "in groups"),
        (
            {
                "weight": torch.zeros(4, 8, dtype=torch.int8),
                "weight_zero_point": torch.zeros(4, 1, dtype=torch.int8),
            },
            "asymmetric",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path, tensors, words):
    tensors = {f"layer.{name}": value for name, value in tensors.items()}
    save_file(tensors | {"layer.weight_scale": torch.ones(4, 1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=words):
        integers_on_disk(tmp_path)


def test_one_scale_for_the_whole_matrix_is_spread_over_its_rows(tmp_path):
    tensors = {"a.weight": torch.ones(4, 8, dtype=torch.int8), "a.weight_scale": torch.ones(1)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert integers_on_disk(tmp_path)["a"].scale.shape == (4, 1)


def test_dequantize_leaves_a_plain_model(tmp_path):
    model = quantized(method="static")
    weights = quantized_weights(model)
    simulated = logits_of(model)
    dequantize(model)
    assert not is_quantized(model)
    assert model.state_dict().keys() == tiny.model().state_dict().keys()
    for name, linear in weights.items():
        module = model.get_submodule(name)
        assert (module.weight.numpy(force=True) == linear.values * linear.scale).all()
        assert "forward" not in vars(module)
    assert (logits_of(model) - simulated).abs().max() > 1e-4  # inputs are no longer rounded
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    again, _ = reload(tmp_path)
    assert torch.equal(logits_of(again), logits_of(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_load_dequantized(tmp_path, family):
    model = quantized(family, "static")
    folder = tmp_path / family
    loaded = SimpleNamespace(model=model, tokenizer=tiny.tokenizer(), checkpoint=EMPTY)
    save_quantized(loaded, folder)
    loaded = load_dequantized(open_checkpoint(folder), attention="eager")
    dequantize(model)
    assert not is_quantized(loaded.model)
    assert loaded.model.config._attn_implementation == "eager"
    assert not hasattr(loaded.model.config, "quantization_config")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    assert torch.allclose(logits_of(loaded.model), logits_of(model), atol=1e-5)


def test_attach_takes_integers_from_anywhere():
    model = tiny.model()
    values = torch.randint(-128, 128, (32, 32), dtype=torch.int8)
    scale = torch.full((32, 1), 0.01)
    attach(model, {QUERY: (values, scale)}, {QUERY: (0.05, 3)}, symmetric=False)
    ((name, linear),) = quantized_weights(model).items()
    assert name == QUERY
    assert (linear.values == values.numpy()).all()
    assert linear.activation == (pytest.approx(0.05), 3)
    assert "classifier" in model.config.quantization_config["ignore"]


def test_what_stays_in_float_keeps_its_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for head in ("AutoModelForSequenceClassification", "AutoModelForMaskedLM"):
        model = tiny.model(head=head).to(torch.bfloat16)
        model.save_pretrained("half")
        tiny.tokenizer().save_pretrained("half")
        assert run("quantize half --force -o int8".split()) == 0
        tensors = stored(tmp_path / "int8")
        kinds = {name: tensor.dtype for name, tensor in tensors.items()}
        assert kinds["bert.embeddings.word_embeddings.weight"] == torch.bfloat16
        assert kinds[f"{QUERY}.weight"] == torch.int8
        assert kinds[f"{QUERY}.weight_scale"] == torch.float32
        assert "cls.predictions.decoder.weight" not in tensors  # tied, and stored once
