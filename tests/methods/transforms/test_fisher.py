"""Removal under a budget: by the command line to disk, to ONNX Runtime, and refused in words."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

import tiny
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods import unit_budget
from compressor.methods.transforms.fisher import (
    Options,
    apply,
    fisher,
    michel,
    unit_norms,
    unit_scores,
)
from compressor.methods.unit_gradients import Gradients
from compressor.methods.unit_latency import UnitLatency
from compressor.methods.units import head_macs, neuron_macs
from compressor.model.layers import only_stack
from compressor.model.pruned import remove_units, widths_of


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


def batches(count: int = 40, size: int = 16) -> list[dict[str, torch.Tensor]]:
    rows, made = tiny.rows(count), []
    for first in range(0, count, size):
        part = rows[first : first + size]
        texts = tiny.tokenizer()([row["text"] for row in part], padding=True, return_tensors="pt")
        labels = torch.tensor([tiny.LABELS.index(row["label"]) for row in part])
        made.append({**texts, "labels": labels, "rows": torch.arange(len(part))})
    return made


def prune(family: str = "bert", *, sizes: dict | None = None, **options):
    loaded = SimpleNamespace(model=tiny.model(family, **(sizes or {})), task="text-classification")
    return loaded.model, apply(loaded, batches(), Options(**options))


def last_metrics(folder) -> dict:
    return json.loads((folder / "compression.json").read_text())["steps"][-1]["metrics"]


def test_from_the_command_line_to_disk_and_back(here, capsys):
    words = "prune teacher --method fisher --mac-ratio 0.4 --data data -o narrow"
    assert run(words.split()) == 0
    found = last_metrics(here / "narrow")
    config = json.loads((here / "narrow/config.json").read_text())
    assert config["model_type"] == "compressor_pruned_bert"
    for key in ("heads_per_layer", "ffn_per_layer"):
        assert config[key] == found[key]
    assert len(set(zip(found["heads_per_layer"], found["ffn_per_layer"], strict=True))) > 1
    assert 0.39 * found["macs_before"] < found["macs_after"] <= 0.4 * found["macs_before"]
    assert found["calibration_rows"] == 320

    capsys.readouterr()
    assert run(["inspect", "narrow", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    layers = [row for row in shown["layers"] if row["part"] != "outside the layers"]
    assert [row["heads"] for row in layers] == found["heads_per_layer"]
    assert [row["ffn"] for row in layers] == found["ffn_per_layer"]
    assert sum(row["parameters"] for row in layers) == found["encoder_parameters_after"]
    assert run(["inspect", "narrow"]) == 0
    heading = next(line for line in capsys.readouterr().out.splitlines() if "parameters  " in line)
    assert heading.split()[:3] == ["part", "heads", "ffn"]

    config["heads_per_layer"] = [5 - heads for heads in found["heads_per_layer"]]
    (here / "narrow/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert run("inspect narrow --accept-changed".split()) == 3
    assert "heads and" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta", "distilbert", "electra"])
def test_the_graph_computes_what_torch_does(family, tmp_path, monkeypatch):
    from compressor.export.session import open_session

    monkeypatch.chdir(tmp_path)
    # Of 6 heads that are 8 wide, 3 are 24: a width that 6 heads divide as well.
    sizes = {"hidden_size": 48, "num_attention_heads": 6}
    model = tiny.model(family, **sizes)
    remove_units(model, [[0, 2, 5], [1, 2, 3, 4]], [[1, 2, 3], list(range(40))])
    model.save_pretrained(tmp_path / "narrow")
    tiny.tokenizer().save_pretrained(tmp_path / "narrow")
    assert run("export narrow --weights fp32 -o graph".split()) == 0
    session = open_session(tmp_path / "graph", threads=1, cuda=False)
    for rows, length in ((1, 5), (3, 11)):
        ids = torch.randint(5, 100, (rows, length), generator=torch.Generator().manual_seed(0))
        mask = torch.ones_like(ids)
        mask[-1, 3:] = 0
        given = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            wanted = model(**given).logits.numpy()
        arrays = {name: value.numpy() for name, value in given.items()}
        found = session.run({**arrays, "token_type_ids": np.zeros_like(arrays["input_ids"])})
        assert np.abs(found - wanted).max() < 1e-4


def test_a_pruned_checkpoint_goes_on_to_int8_and_to_a_second_pruning(here):
    model = tiny.model("bert")
    remove_units(model, [[0], [1, 2, 3]], [[1, 2, 3], list(range(40))])
    model.save_pretrained(here / "narrow")
    tiny.tokenizer().save_pretrained(here / "narrow")
    assert run("quantize narrow -o small".split()) == 0
    assert run("export small -o graph".split()) == 0
    words = "prune narrow --method fisher --mac-ratio 0.8 --data data --samples 32 -o narrower"
    assert run(words.split()) == 0
    found = last_metrics(here / "narrower")
    assert found["macs_after"] <= 0.8 * found["macs_before"]
    assert found["heads_per_layer"][0] == 1
    assert run("prune narrow --method magnitude --sparsity 0.5 -o sparse".split()) == 0


@pytest.mark.parametrize(
    ("family", "group", "maps"), [("bert", 1, 2), ("distilbert", 1, 2), ("llama", 2, 3)]
)
def test_the_facts_are_those_of_the_model(family, group, maps):
    # DistilBERT calls the width of its feed-forward part so.
    model, facts = prune(family, sizes={"hidden_dim": 64}, sequence_length=20, mac_ratio=0.6)
    widths = widths_of(model)
    assert (list(widths.heads), list(widths.ffn)) == (
        facts["heads_per_layer"],
        facts["ffn_per_layer"],
    )
    head, neuron = head_macs(20, widths), neuron_macs(20, 32, maps)
    assert facts["macs_before"] == 2 * (4 // group * head + 64 * neuron)
    spent = sum(widths.heads) // group * head + sum(widths.ffn) * neuron
    assert facts["macs_after"] == spent <= 0.6 * facts["macs_before"]
    assert spent + neuron > 0.6 * facts["macs_before"]
    layers = only_stack(model)[1]
    assert facts["encoder_parameters_after"] == sum(p.numel() for p in layers.parameters())
    assert facts["encoder_parameters_before"] > facts["encoder_parameters_after"]


def test_the_mean_length_of_the_rows_is_counted():
    real = sum(int(batch["attention_mask"].sum()) for batch in batches())
    assert prune()[1]["sequence_length"] == round(real / 40)


def test_everything_may_stay():
    model, facts = prune(mac_ratio=1.0)
    assert facts["heads_per_layer"] == [4, 4]
    assert facts["macs_after"] == facts["macs_before"]
    assert model.config.model_type == "bert"


@pytest.mark.parametrize("repair", ["refit", "none"])
def test_steps_end_at_the_budget_and_score_anew(repair):
    _, once = prune(mac_ratio=0.4, repair=repair)
    model, facts = prune(mac_ratio=0.4, repair=repair, steps=3)
    length = facts["sequence_length"]
    neuron = neuron_macs(length, model.config.hidden_size, 2)
    assert 0.4 * facts["macs_before"] - neuron < facts["macs_after"] <= 0.4 * facts["macs_before"]
    assert facts["repaired"] == once["repaired"]
    assert sum(widths_of(model).ffn) == sum(facts["ffn_per_layer"])


def test_a_budget_that_the_last_step_misses_is_refused_before_the_first():
    with pytest.raises(UsageError, match=r"--mac-ratio 0\.001 is"):
        prune(mac_ratio=0.001, steps=4)


def test_widths_are_rounded_within_the_budget():
    _, facts = prune(round_ffn=8, mac_ratio=0.55)
    assert not any(width % 8 for width in facts["ffn_per_layer"])
    assert facts["macs_after"] <= 0.55 * facts["macs_before"]


def test_uniform_opens_without_compressor(tmp_path):
    model, facts = prune(uniform=True, round_ffn=4, mac_ratio=0.7)
    assert facts["heads_per_layer"] == [4, 4]
    assert len(set(facts["ffn_per_layer"])) == 1
    assert facts["macs_after"] <= 0.7 * facts["macs_before"]
    model.save_pretrained(tmp_path)
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is transformers.BertConfig
    model, facts = prune("llama", uniform=True, mac_ratio=0.5)
    assert model.config.model_type == "llama"
    assert len(set(facts["heads_per_layer"])) == 1


@pytest.mark.parametrize("importance", ["fisher", "michel", "magnitude", "random"])
def test_every_score_keeps_the_same_numbers(importance):
    _, facts = prune(importance=importance, repair="none", rearrange=importance == "fisher")
    _, plain = prune(repair="none")
    assert facts["repaired"] == []
    for key in ("heads_per_layer", "ffn_per_layer"):
        assert sum(facts[key]) == sum(plain[key])
    assert facts["macs_after"] == plain["macs_after"]


def test_another_draw_keeps_others():
    weights = [
        only_stack(prune(importance="random", random_seed=seed, repair="none")[0])[1][0]
        .output.dense.weight.sum()
        .item()
        for seed in (0, 0, 1)
    ]
    assert weights[0] == weights[1] != weights[2]


def test_scores_by_hand():
    batch = torch.tensor([[1.0, -2.0], [3.0, 0.0]])  # [mini-batches, units]
    kind = Gradients([batch], [torch.tensor([3.0, 4.0])])
    assert fisher(kind)[0].tolist() == [10, 4]
    assert michel(kind)[0].tolist() == pytest.approx([0.6, 0.8])
    assert unit_scores(None, (kind, kind), Options(importance="michel"))[1][0].tolist() == (
        pytest.approx([0.6, 0.8])
    )


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_norms_are_those_of_all_weights_of_a_unit(family):
    model = tiny.model(family)
    heads, neurons = unit_norms(model)
    layer = only_stack(model)[1][0]
    if family == "bert":
        own = layer.attention.self
        maps = [own.query.weight[8:16], own.key.weight[8:16], own.value.weight[8:16]]
        maps.append(layer.attention.output.dense.weight[:, 8:16])
        rows = [layer.intermediate.dense.weight[3], layer.output.dense.weight[:, 3]]
    else:
        own = layer.self_attn
        maps = [own.q_proj.weight[16:32], own.k_proj.weight[8:16], own.v_proj.weight[8:16]]
        maps.append(own.o_proj.weight[:, 16:32])
        mlp = layer.mlp
        rows = [mlp.gate_proj.weight[3], mlp.up_proj.weight[3], mlp.down_proj.weight[:, 3]]
    for found, parts in ((heads[0][1], maps), (neurons[0][3], rows)):
        squares = sum(float(part.detach().square().sum()) for part in parts)
        assert float(found) == pytest.approx(squares**0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mac_ratio": 0.01}, "--mac-ratio 0.01 is .* the smallest result"),
        ({"mac_ratio": 0.5, "uniform": True, "round_ffn": 64}, "--mac-ratio 0.5 is"),
        ({"round_ffn": 65}, "--round-ffn 65: a layer has only 64"),
        ({"random_seed": 1}, "--importance random"),
    ],
)
def test_options_that_no_result_obeys(options, said):
    with pytest.raises(UsageError, match=said):
        prune(**options)


def test_uniform_heads_of_layers_that_differ_are_refused():
    loaded = SimpleNamespace(model=tiny.model("bert"), task="text-classification")
    remove_units(loaded.model, [[0], [1, 2]], [[1, 2, 3]] * 2)
    with pytest.raises(InputError, match="have 1, 2 heads"):
        apply(loaded, batches(), Options(uniform=True, mac_ratio=0.9))


def test_other_families_and_models_without_a_head_are_refused():
    with pytest.raises(InputError, match=r"gpt2 model .* bert, roberta"):
        prune("gpt2")
    loaded = SimpleNamespace(model=tiny.model("bert", head="AutoModel"), task=None)
    with pytest.raises(InputError, match="no head"):
        apply(loaded, batches(), Options())


def test_a_family_that_is_not_known_is_refused_on_the_command_line(here, capsys):
    tiny.checkpoint(here / "other", "gpt2")
    assert run("prune other --method fisher --data data -o out".split()) == 3
    assert "gpt2" in capsys.readouterr().err


def test_a_budget_of_time_is_kept_and_reported(here, monkeypatch, capsys):
    known = UnitLatency(full=10.0, head=0.1, neuron=0.01, free=(1, 2))
    monkeypatch.setattr(unit_budget, "measured", lambda *_: known)
    words = "prune teacher --method fisher --latency-ratio 0.9 --data data -o faster"
    assert run([*words.split(), "--sequence-length", "64", "--latency-batch", "16"]) == 0
    found = last_metrics(here / "faster")
    assert found["macs_after"] < found["macs_before"]
    assert not [name for name in found if name.endswith("_ms")]  # the same bytes every time
    facts = json.loads((here / "faster/run.json").read_text())
    assert min(facts[f"latency_{name}_ms"] for name in ("before", "after")) > 0
    assert 8.98 < facts["latency_expected_ms"] <= 9.0
    assert "asked for 90%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--latency-ratio 0.5 --mac-ratio 0.4", "two budgets"),
        ("--latency-batch 4", "--latency-batch needs --latency-ratio"),
    ],
)
def test_a_budget_that_contradicts_itself(flags, words, here, capsys):
    command = f"prune teacher --method fisher {flags} --data data -o faster"
    assert run(command.split()) == 2
    assert words in capsys.readouterr().err
