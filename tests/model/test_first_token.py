"""Computing the last layer for the first token only changes nothing but the time."""

import copy

import pytest
import torch

import tiny
from compressor.model.first_token import only_first_token
from compressor.model.layers import encoder_linears, only_stack

FAMILIES = ("bert", "roberta", "electra", "distilbert", "xlm-roberta", "camembert")


def inputs():
    batch = tiny.tokenizer()(["great film", "a very dull plot"], padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def last_lengths(model) -> list[int]:
    """Tokens that each linear map of the last layer is given."""
    stack, layers = only_stack(model)
    seen, last = [], f"{stack}.{len(layers) - 1}."
    for name, module in encoder_linears(model).items():
        if name.startswith(last):
            module.register_forward_hook(lambda m, given, output: seen.append(given[0].shape[1]))
    model(**inputs())
    return sorted(seen)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_gradients_stay(family, kernel):
    model = tiny.model(family, pooler_hidden_size=32, attn_implementation=kernel).eval()
    short = copy.deepcopy(model)
    for rows in (inputs(), {"input_ids": torch.tensor([[5, 6, 7]])}):  # with a mask and without
        plain = model(**rows).logits
        with only_first_token(short):
            found = short(**rows).logits
        torch.testing.assert_close(found, plain)
        plain.square().sum().backward()
        found.square().sum().backward()
    pairs = zip(model.named_parameters(), short.parameters(), strict=True)
    for (name, wanted), found in pairs:
        assert (wanted.grad is None) == (found.grad is None), name
        if wanted.grad is not None:
            torch.testing.assert_close(found.grad, wanted.grad, msg=lambda text, at=name: at + text)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_keys_and_values_see_every_token(family):
    length = inputs()["input_ids"].shape[1]
    model = tiny.model(family, pooler_hidden_size=32)
    with only_first_token(model):
        assert last_lengths(model) == [1, 1, 1, 1, length, length]
    assert "forward" not in vars(only_stack(model)[1][-1])


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("mpnet", "AutoModelForSequenceClassification"),
        ("llama", "AutoModelForSequenceClassification"),
        ("bert", "AutoModelForMaskedLM"),
    ],
)
def test_a_model_whose_head_may_look_elsewhere_is_left_alone(family, head):
    model = tiny.model(family, head=head)
    with only_first_token(model):
        assert "forward" not in vars(only_stack(model)[1][-1])
