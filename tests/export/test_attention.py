import pytest
import torch

from compressor.export.attention import MINIMUM_OPSET, attention, padding_mask, use_attention_node

from . import families


def by_hand(query, key, value, bias, scale):
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], dim=1) for t in (key, value))
    scores = query @ key.transpose(2, 3) * scale
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("biased", [False, True])
def test_node_computes_attention(key_heads, biased):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 5, 8)
    key, value = torch.randn(2, 2, key_heads, 6, 8)
    mask = torch.zeros(2, 1, 5, 6)
    mask[1, :, :, 4:] = torch.finfo(torch.float32).min
    bias = torch.randn(1, 4, 5, 6) if biased else None
    found, _ = attention(None, query, key, value, mask, scaling=0.5, position_bias=bias)
    expected = by_hand(query, key, value, mask + bias if biased else mask, 0.5)
    torch.testing.assert_close(found, expected)


def test_mask_of_padding_is_that_of_eager_attention():
    from transformers.masking_utils import (
        bidirectional_mask_function,
        causal_mask_function,
        eager_mask,
    )

    seen = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).bool()
    for function in (bidirectional_mask_function, causal_mask_function):
        options = {"mask_function": function, "attention_mask": seen}
        torch.testing.assert_close(padding_mask(2, 4, 4, **options), eager_mask(2, 4, 4, **options))


def test_no_mask_without_padding():
    from transformers.masking_utils import bidirectional_mask_function

    assert padding_mask(2, 4, 4, mask_function=bidirectional_mask_function) is None


def fail_while_traced(model):
    with use_attention_node(model, MINIMUM_OPSET):
        assert model.config._attn_implementation != "eager"
        raise RuntimeError("no graph")


def test_the_models_own_attention_comes_back_also_after_a_failure():
    model = families.build("bert")
    with pytest.raises(RuntimeError, match="no graph"):
        fail_while_traced(model)
    assert model.config._attn_implementation == "eager"


def test_older_opsets_have_no_attention_node():
    model = families.build("bert")
    with use_attention_node(model, MINIMUM_OPSET - 1):
        assert model.config._attn_implementation == "eager"
