"""Mask gradients: of the loss as it is, in mini-batches whatever the batches were."""

import pytest
import torch

import tiny
from compressor.checkpoint.pruned import parts_of
from compressor.errors import InputError
from compressor.methods.unit_gradients import (
    first_rows,
    label_counts,
    mask_gradients,
    mean_length,
    row_gradients,
)
from compressor.model.layers import only_stack


def batch_of(rows: list[dict], extra: int = 0) -> dict[str, torch.Tensor]:
    """Rows as the feed gives them, with `extra` columns of padding."""
    texts = tiny.tokenizer()([row["text"] for row in rows], padding=True, return_tensors="pt")
    padded = {name: torch.nn.functional.pad(texts[name], (0, extra)) for name in texts}
    labels = torch.tensor([tiny.LABELS.index(row["label"]) for row in rows])
    return {**padded, "labels": labels, "rows": torch.arange(len(rows))}


def loss_with(model, batch, path: str, factor: torch.Tensor) -> float:
    """The mean loss with a layer's output map fed `factor` times its usual input."""
    module = only_stack(model)[1][0].get_submodule(path)
    handle = module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * factor,))
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        loss = model.double()(**inputs, labels=batch["labels"]).loss
    handle.remove()
    return float(loss)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradients_are_slopes_of_the_loss(family):
    model, batch = tiny.model(family).double(), batch_of(tiny.rows(6))
    heads, neurons = mask_gradients(model, "text-classification", [batch], 32)
    parts, step = parts_of(family), 1e-3
    unit = 8 if family == "bert" else 16  # a group of two query heads
    for kind, path, width in ((heads, parts.out, unit), (neurons, parts.down, 1)):
        columns = slice(width, 2 * width)
        size = only_stack(model)[1][0].get_submodule(path).in_features
        up, down = (torch.ones(size, dtype=torch.float64) for _ in range(2))
        up[columns] += step
        down[columns] -= step
        slope = (loss_with(model, batch, path, up) - loss_with(model, batch, path, down)) / 2 / step
        assert float(kind.batches[0][0, 1]) == pytest.approx(slope, rel=1e-3, abs=5e-5)


def test_mini_batches_do_not_depend_on_the_batches_or_their_padding():
    model, rows = tiny.model("bert"), tiny.rows(10)
    whole = mask_gradients(model, "text-classification", [batch_of(rows)], 4)
    parts = [batch_of(rows[:3], extra=5), batch_of(rows[3:8]), batch_of(rows[8:], extra=1)]
    cut = mask_gradients(model, "text-classification", parts, 4)
    for one, other in zip(whole, cut, strict=True):
        assert one.batches[0].shape[0] == 3  # rows 4 + 4 + 2
        for index in range(2):
            torch.testing.assert_close(one.batches[index], other.batches[index])
            torch.testing.assert_close(one.sizes[index], other.sizes[index])


def test_sizes_are_means_of_absolute_gradients_of_rows():
    model, batch = tiny.model("bert"), batch_of(tiny.rows(5))
    gradients, counts = row_gradients(model, "text-classification", batch)
    heads, neurons = mask_gradients(model, "text-classification", [batch], 2)
    assert counts.tolist() == [1] * 5
    assert gradients[0].shape == (5, 4)
    assert gradients[1].shape == (5, 64)
    torch.testing.assert_close(heads.sizes[0], gradients[0].abs().mean(0))
    torch.testing.assert_close(neurons.batches[1][0], gradients[3][:2].mean(0))
    alone, _ = row_gradients(model, "text-classification", batch_of(tiny.rows(5)[:1]))
    torch.testing.assert_close(alone[0][0], gradients[0][0], atol=1e-6, rtol=1e-4)


def test_rows_without_a_label_count_for_nothing():
    model, batch = tiny.model("bert"), batch_of(tiny.rows(4))
    batch["labels"][1] = -100
    known = {name: values[[0, 2, 3]] for name, values in batch.items()}
    for one, other in zip(
        mask_gradients(model, "text-classification", [batch], 32),
        mask_gradients(model, "text-classification", [known], 32),
        strict=True,
    ):
        torch.testing.assert_close(one.batches[0], other.batches[0])
        torch.testing.assert_close(one.sizes[0], other.sizes[0])
    batch["labels"][:] = -100
    with pytest.raises(InputError, match="none of the rows has a label"):
        mask_gradients(model, "text-classification", [batch], 32)


def test_labels_of_every_task():
    tokens = torch.tensor([[5, -100, 7], [-100, -100, 3]])
    assert label_counts("masked-lm", tokens).tolist() == [2, 1]
    assert label_counts("causal-lm", tokens).tolist() == [1, 1]
    assert label_counts("regression", torch.tensor([0.5, float("nan")])).tolist() == [1, 0]
    assert label_counts("text-classification", torch.tensor([1, -100])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("family", "head", "task"),
    [
        ("bert", "AutoModelForMaskedLM", "masked-lm"),
        ("llama", "AutoModelForCausalLM", "causal-lm"),
    ],
)
def test_a_language_model_counts_tokens(family, head, task):
    model, batch = tiny.model(family, head=head, labels=None), batch_of(tiny.rows(4))
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    whole, _ = mask_gradients(model, task, [batch], 4)
    halves = [{n: v[:2] for n, v in batch.items()}, {n: v[2:] for n, v in batch.items()}]
    split, _ = mask_gradients(model, task, halves, 4)
    torch.testing.assert_close(whole.batches[0], split.batches[0])


def test_the_model_is_left_as_it_was():
    model = tiny.model("bert")
    model.classifier.requires_grad_(False)
    mask_gradients(model, "text-classification", [batch_of(tiny.rows(2))], 32)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {n for n, _ in model.named_parameters()} - trained == {
        "classifier.weight",
        "classifier.bias",
    }
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_first_rows_keeps_labels_and_stops_inside_a_batch():
    batches = [batch_of(tiny.rows(4)) for _ in range(3)]
    kept = first_rows(iter(batches), 6)
    assert [len(batch["labels"]) for batch in kept] == [4, 2]
    assert mean_length(kept) == pytest.approx(
        (int(batches[0]["attention_mask"].sum()) + int(batches[0]["attention_mask"][:2].sum())) / 6
    )
    with pytest.raises(InputError, match="rows with labels"):
        first_rows(None, 6)
