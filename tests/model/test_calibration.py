"""What linear maps are fed at real tokens, and who shares it."""

import pytest
import torch

import tiny
from compressor.errors import InputError
from compressor.model.calibration import (
    first_rows,
    input_products,
    real_positions,
    watch_inputs,
)
from compressor.model.layers import by_layer, encoder_linears

ROWS = [[7, 20, 33, 8], [9, 41, 5], [60, 12, 70, 71, 72, 6]]


def batch_of(rows, pad_to=0):
    length = max(pad_to, *(len(row) for row in rows))
    ids = torch.tensor([row + [3] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def test_real_positions_follow_the_mask_in_every_layout():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    inputs = torch.arange(12.0).view(2, 3, 2)
    expected = [[0.0, 1.0], [2.0, 3.0], [6.0, 7.0]]
    assert real_positions(inputs, mask).tolist() == expected
    assert real_positions(inputs.view(6, 2), mask).tolist() == expected
    assert real_positions(inputs, None) is inputs
    pooled = torch.ones(2, 5)
    assert real_positions(pooled, mask) is pooled


def test_first_rows_stops_in_the_middle_of_a_batch_and_drops_labels():
    batches = [{"input_ids": torch.ones(4, 2), "labels": torch.ones(4)} for _ in range(5)]
    kept = first_rows(iter(batches), 6)
    assert [len(batch["input_ids"]) for batch in kept] == [4, 2]
    assert all(set(batch) == {"input_ids"} for batch in kept)


def last_names(names):
    return {tuple(name.rpartition(".")[2] for name in group) for group in names}


@pytest.mark.parametrize(
    ("family", "groups"),
    [
        ("bert", {("query", "key", "value"), ("dense",)}),
        ("llama", {("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"),
                   ("down_proj",)}),
        ("gpt2", {("c_attn",), ("c_proj",), ("c_fc",)}),
    ],
)  # fmt: skip
def test_maps_that_are_fed_one_tensor_share_its_products(family, groups):
    model = tiny.model(family)
    first, *_ = by_layer(model, encoder_linears(model))
    products = input_products(model, first, [batch_of(ROWS)])
    assert last_names(products) == groups
    assert sorted(name for names in products for name in names) == sorted(first)


def test_products_are_those_of_the_inputs_of_each_map():
    model = tiny.model()
    first, *_ = by_layer(model, encoder_linears(model))
    products = input_products(model, first, [batch_of([row]) for row in ROWS])
    assert products
    for names, product in products.items():
        seen = []
        module = first[names[-1]]
        handle = module.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(given[0][0])
        )
        for row in ROWS:
            model(input_ids=torch.tensor([row]))
        handle.remove()
        inputs = torch.cat(seen).double()  # [tokens, in]
        assert torch.allclose(product, inputs.T @ inputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_padding_is_no_part_of_the_products(family):
    model = tiny.model(family)
    linears = encoder_linears(model)
    alone = input_products(model, linears, [batch_of([row]) for row in ROWS])
    padded = input_products(model, linears, [batch_of(ROWS, pad_to=12)])
    blind = batch_of(ROWS, pad_to=12)
    blind["attention_mask"] = torch.ones_like(blind["input_ids"])
    wrong = input_products(model, linears, [blind])
    for names, product in alone.items():
        assert torch.allclose(padded[names], product, rtol=1e-3, atol=1e-3), names
        assert wrong[names].trace() > 1.5 * product.trace(), names


def test_what_changes_an_input_later_is_not_seen():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.map = torch.nn.Linear(2, 2)

        def forward(self, inputs, attention_mask):
            answer = self.map(inputs)
            inputs.mul_(0.0)
            return answer

    seen, layer = [], Layer()
    batch = {"inputs": torch.ones(1, 3, 2), "attention_mask": torch.ones(1, 3)}
    watch_inputs(layer, {"map": layer.map}, [batch], lambda names, x: seen.append((names, x)))
    ((names, values),) = seen
    assert names == ["map"]
    assert torch.equal(values, torch.ones(3, 2))


def test_a_map_that_no_row_reaches_is_refused_with_what_to_type():
    model = tiny.model()
    modules = {**encoder_linears(model), "idle": torch.nn.Linear(4, 2)}
    with pytest.raises(InputError, match="never reach idle") as refused:
        input_products(model, modules, [batch_of(ROWS)])
    assert refused.value.hint == "--exclude idle"


def test_infinite_inputs_are_refused():
    model = tiny.model()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[20] = float("inf")
    with pytest.raises(InputError, match="query are not finite"):
        input_products(model, encoder_linears(model), [batch_of(ROWS)])
