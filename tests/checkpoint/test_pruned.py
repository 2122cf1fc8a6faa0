"""What a pruned config may say, and that tensors which say otherwise are refused in words."""

from pathlib import Path

import pytest

from compressor.checkpoint.header import TensorInfo
from compressor.checkpoint.pruned import check_pruned, layer_shapes, widths_in
from compressor.errors import InputError

HERE = Path("folder")
BERT = {
    "model_type": "compressor_pruned_bert",
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "heads_per_layer": [3, 1],
    "ffn_per_layer": [5, 16],
}
LLAMA = {**BERT, "model_type": "compressor_pruned_llama", "num_key_value_heads": 2, "head_dim": 3}
MPNET = {
    **BERT,
    "model_type": "compressor_pruned_mpnet",
    "kept_heads_per_layer": [[0, 2, 3], [1]],
}


def tensors(config: dict, **changes) -> dict[str, TensorInfo]:
    family = config["model_type"].rpartition("_")[2]
    found = {}
    for index, shapes in enumerate(layer_shapes(family, widths_in(config, HERE))):
        for inner, shape in shapes.items():
            name = f"encoder.layer.{index}.{inner}.weight"
            found[name] = TensorInfo(name, "F32", changes.get(inner, shape), HERE, 0, 0)
    return found


def test_widths_of_a_pruned_and_of_a_plain_config():
    pruned = widths_in(BERT, HERE)
    assert (pruned.heads, pruned.ffn, pruned.head_width, pruned.group) == ((3, 1), (5, 16), 2, 1)
    plain = widths_in({**BERT, "model_type": "bert"}, HERE)
    assert (plain.heads, plain.ffn, plain.kept) == ((4, 4), (16, 16), None)
    assert widths_in({**MPNET, "model_type": "mpnet"}, HERE).kept == ((0, 1, 2, 3),) * 2
    assert widths_in(MPNET, HERE).kept == ((0, 2, 3), (1,))


def test_shapes_of_a_layer():
    first, _ = layer_shapes("bert", widths_in(BERT, HERE))
    assert first == {
        "attention.self.query": (6, 8),
        "attention.self.key": (6, 8),
        "attention.self.value": (6, 8),
        "attention.output.dense": (8, 6),
        "intermediate.dense": (5, 8),
        "output.dense": (8, 5),
    }
    first, _ = layer_shapes("llama", widths_in({**LLAMA, "heads_per_layer": [4, 2]}, HERE))
    assert first["self_attn.q_proj"] == (12, 8)
    assert first["self_attn.k_proj"] == first["self_attn.v_proj"] == (6, 8)
    assert first["mlp.gate_proj"] == first["mlp.up_proj"] == (5, 8)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**BERT, "heads_per_layer": None}, "heads_per_layer is missing; expected 2 whole numbers"),
        ({**BERT, "heads_per_layer": 3}, "heads_per_layer is 3; expected 2"),
        ({**BERT, "heads_per_layer": [3]}, "from 1 to 4, one a layer"),
        ({**BERT, "heads_per_layer": [3, 0]}, "from 1 to 4"),
        ({**BERT, "heads_per_layer": [3, 5]}, "from 1 to 4"),
        ({**BERT, "heads_per_layer": [3, 1.0]}, "from 1 to 4"),
        ({**BERT, "heads_per_layer": [True, 1]}, "from 1 to 4"),
        ({**BERT, "ffn_per_layer": [5, 17]}, "ffn_per_layer is .* from 1 to 16"),
        ({**BERT, "ffn_per_layer": {"0": 5}}, "ffn_per_layer"),
        ({**BERT, "num_attention_heads": None}, "num_attention_heads is missing"),
        ({**LLAMA, "heads_per_layer": [4, 1]}, "multiple of 2"),
        ({**MPNET, "kept_heads_per_layer": [[0, 2], [1]]}, "of the 3, 1 heads"),
        ({**MPNET, "kept_heads_per_layer": [[0, 2, 2], [1]]}, "kept_heads_per_layer"),
        ({**MPNET, "kept_heads_per_layer": [[0, 2, 4], [1]]}, "from 0 to 3"),
        ({**BERT, "model_type": "compressor_pruned_gpt2"}, "gpt2 .*; the families are bert, rob"),
    ],
)
def test_lists_that_no_layers_can_have(config, said):
    with pytest.raises(InputError, match=said):
        widths_in(config, HERE)


def test_tensors_that_fit_and_one_that_does_not():
    check_pruned(BERT, tensors(BERT), HERE)
    wrong = tensors(BERT, **{"attention.output.dense": (8, 8)})
    with pytest.raises(InputError) as refusal:
        check_pruned(BERT, wrong, HERE)
    assert refusal.value.message == (
        "encoder.layer.0.attention.output.dense.weight has shape [8, 8], expected [8, 6]: "
        "config.json says 3 heads and 5 neurons for layer 0"
    )
