"""The index sets of the paper, exact truncation, and a plain reload."""

from types import SimpleNamespace

import pytest
import torch
import transformers

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods.transforms import layer_drop
from compressor.model.rewrite import rewrite
from compressor.model.save import probe_inputs
from compressor.model.surgery import keep_layers


@pytest.mark.parametrize(
    ("layers", "drop", "strategy", "expected"),
    [
        (6, 2, "top", [4, 5]),
        (6, 2, "bottom", [0, 1]),
        (6, 2, "symmetric", [2, 3]),
        (6, 3, "alternate-even", [1, 3, 5]),
        (6, 3, "alternate-odd", [0, 2, 4]),
        # The paper's table for 12 layers, written from zero.
        (12, 2, "top", [10, 11]),
        (12, 4, "top", [8, 9, 10, 11]),
        (12, 4, "bottom", [0, 1, 2, 3]),
        (12, 2, "alternate-even", [9, 11]),
        (12, 4, "alternate-even", [5, 7, 9, 11]),
        (12, 2, "alternate-odd", [8, 10]),
        (12, 4, "alternate-odd", [4, 6, 8, 10]),
        (12, 2, "symmetric", [5, 6]),
        (12, 4, "symmetric", [4, 5, 6, 7]),
        (12, 6, "symmetric", [3, 4, 5, 6, 7, 8]),
    ],
)
def test_index_sets(layers, drop, strategy, expected):
    assert layer_drop.dropped_layers(layers, drop, strategy) == expected


@pytest.mark.parametrize(("drop", "strategy"), [(0, "top"), (6, "top"), (4, "alternate-even")])
def test_what_cannot_be_dropped(drop, strategy):
    with pytest.raises(UsageError):
        layer_drop.dropped_layers(6, drop, strategy)


def dropped(model, folder, **options):
    """The facts, and the folder that is written for `model`."""
    model.save_pretrained(folder / "whole")
    tiny.tokenizer().save_pretrained(folder / "whole")
    checkpoint = open_checkpoint(folder / "whole")
    rewriting = layer_drop.rewrite(checkpoint, layer_drop.Options(**options))
    (folder / "short").mkdir()
    rewrite(checkpoint, rewriting, folder / "short")
    return rewriting.facts(), folder / "short"


def test_dropping_the_top_reproduces_the_hidden_state_below_bit_for_bit(tmp_path):
    model = tiny.model(head="AutoModel", num_hidden_layers=4)
    _, folder = dropped(model, tmp_path, drop=2)
    short = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = probe_inputs(model)
    with torch.inference_mode():
        wanted, found = (
            each(**inputs, output_hidden_states=True).hidden_states for each in (model, short)
        )
    assert len(found) == 3
    assert torch.equal(wanted[2], found[2])


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "roberta", "electra", "mpnet", "gpt2", "llama", "modernbert"]
)
def test_plain_reload_gives_what_the_model_without_the_layers_gives(family, tmp_path):
    model = tiny.model(family, num_hidden_layers=4)
    facts, folder = dropped(model, tmp_path, drop_layers="2,1")
    assert facts == {"kept_layers": [0, 3], "dropped_layers": [1, 2]}
    keep_layers(model, [0, 3])
    again, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert open_checkpoint(folder).layers == 2
    inputs = probe_inputs(model)
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, again.eval()(**inputs).logits)


def test_every_layer_of_minilm_has_1774464_parameters():
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    with torch.device("meta"):
        model = transformers.BertModel(transformers.BertConfig(num_hidden_layers=6, **sizes))
    before = model.num_parameters()
    keep_layers(model, [0, 2, 4])
    assert before - model.num_parameters() == 3 * 1_774_464


def test_lists_of_a_config_that_go_by_layer_follow():
    config = transformers.SmolLM3Config(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    model = transformers.SmolLM3ForCausalLM(config).eval()
    keep_layers(model, [0, 3, 5])
    again = transformers.SmolLM3ForCausalLM(model.config).eval()
    again.load_state_dict(model.state_dict())
    inputs = probe_inputs(model)
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    assert len(model.config.no_rope_layers) == 3


@pytest.mark.parametrize(("family", "why"), [("albert", "shares its layers"), ("t5", "2 stacks")])
def test_families_without_layers_of_their_own_are_refused_by_name(family, why, tmp_path):
    with pytest.raises(InputError, match=f"a {family} model .*{why}"):
        dropped(tiny.model(family), tmp_path, drop=1)


def test_a_first_layer_that_is_built_differently_must_stay_first(tmp_path):
    with pytest.raises(InputError, match="by position"):
        dropped(tiny.model("modernbert", num_hidden_layers=4), tmp_path, strategy="bottom", drop=2)


@pytest.mark.parametrize("layers", ["4", "0,9", "0,1,2,3"])
def test_layers_that_cannot_go_are_refused(layers, tmp_path):
    with pytest.raises(UsageError, match="--drop-layers"):
        dropped(tiny.model(num_hidden_layers=4), tmp_path, drop_layers=layers)


def test_similarities_by_hand():
    zeros, east, north = [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]
    # Two rows of two tokens, the second row's last is padding; three states, so two layers.
    hidden = torch.tensor(
        [
            [[east, east], [north, zeros]],
            [[east, north], [north, east]],
            [[north, north], [[0.0, 5.0], east]],
        ]
    )
    mask = torch.tensor([[1, 1], [1, 0]])
    half = 2**-0.5
    for pool, expected, count in (
        ("first", [2.0, 1.0], 2),
        ("mean", [half + 1, half + 1], 2),
        ("tokens", [2.0, 2.0], 3),
    ):
        found, rows = layer_drop.similarities(hidden, mask, pool)
        assert rows == count
        assert found.tolist() == pytest.approx(expected), pool


def test_padding_on_the_left_is_not_the_first_token():
    hidden = torch.randn(3, 1, 4, 2)
    moved = torch.cat([torch.randn(3, 1, 2, 2), hidden], dim=2)
    plain, _ = layer_drop.similarities(hidden, torch.ones(1, 4), "first")
    padded, _ = layer_drop.similarities(moved, torch.tensor([[0, 0, 1, 1, 1, 1]]), "first")
    torch.testing.assert_close(plain, padded)


@pytest.mark.parametrize(
    ("drop", "threshold", "expected"),
    [(1, 1.0, [2]), (3, 1.0, [1, 2, 4]), (1, 0.8, [1, 2, 4]), (1, 0.95, [2])],
)
def test_the_layers_most_alike_go(drop, threshold, expected):
    assert layer_drop.most_alike([0.7, 0.9, 0.99, 0.5, 0.88], drop, threshold) == expected


@pytest.mark.parametrize("threshold", [0.1, 0.995])
def test_a_threshold_that_leaves_all_or_nothing_is_refused(threshold):
    with pytest.raises(UsageError, match=r"similarities are 0\.700, 0\.990"):
        layer_drop.most_alike([0.7, 0.99], 1, threshold)


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_layer_that_does_nothing_is_dropped_first(position):
    model = tiny.model("llama", num_hidden_layers=4)
    idle = model.model.layers[position]
    for module in (idle.self_attn.o_proj, idle.mlp.down_proj):
        torch.nn.init.zeros_(module.weight)
    torch.nn.init.uniform_(model.model.norm.weight)  # what follows the last layer is no part of it
    batch = probe_inputs(model) | {"rows": torch.arange(2)}
    options = layer_drop.Options(drop=1, strategy="contribution")
    loaded = SimpleNamespace(model=model, task="text-classification")
    facts = layer_drop.apply(loaded, [batch], options)
    assert facts["dropped_layers"] == [position]
    assert facts["similarity"].count(1.0) == 1
    assert facts["pool"] == "tokens"


@pytest.mark.parametrize(
    ("family", "task", "expected"),
    [
        ("bert", "text-classification", "first"),
        ("bert", None, "mean"),
        ("gpt2", "text-classification", "tokens"),
        ("llama", None, "tokens"),
    ],
)
def test_what_is_compared_where_nobody_says(family, task, expected):
    assert layer_drop.pool_of(tiny.model(family), task) == expected


def test_options_of_the_contribution_are_refused_elsewhere():
    with pytest.raises(UsageError, match="belong to --strategy contribution"):
        layer_drop.Options(strategy="top", pool="mean")


def test_contribution_by_the_command_line(workshop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = f"prune {workshop}/teacher --method layer_drop --strategy contribution --drop 1 -o out"
    assert run(words.split()) == 2
    assert "--data" in capsys.readouterr().err
    assert run([*words.split(), "--data", f"{workshop}/data", "--samples", "40"]) == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained("out")
    assert model.config.num_hidden_layers == 3
