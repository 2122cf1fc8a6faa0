"""The zero set before a training is the zero set after it, whatever moved the weights."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

import tiny
from compressor.cli import run
from compressor.errors import InputError
from compressor.methods.contract import Context
from compressor.methods.modifiers import lock_sparsity
from compressor.model.layers import is_linear


def sparse_model():
    model = tiny.model()
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if is_linear(module) and name != "classifier":
            gone = torch.rand(module.weight.shape, generator=generator) < 0.9
            module.weight.data.masked_fill_(gone, 0.0)
    return model


def zeros(model):
    return {name: part.weight == 0 for name, part in model.named_modules() if is_linear(part)}


def trained(model, options, steps=100):
    """AdamW with decay and stale momentum on random gradients."""
    modifier = lock_sparsity.Modifier(options, Context(model, "text-classification"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    modifier.on_start()
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        modifier.after_step(0)
    return modifier


def test_a_hundred_steps_with_decay_move_the_survivors_only():
    model = sparse_model()
    before = zeros(model)
    weights = {name: model.get_submodule(name).weight.clone() for name in before}
    trained(model, lock_sparsity.Options())
    for name, gone in zeros(model).items():
        assert torch.equal(gone, before[name]), name
        weight = model.get_submodule(name).weight
        assert (weight != weights[name])[~gone].all()
        assert not torch.signbit(weight[gone]).any()
    assert before["bert.pooler.dense"].any()
    assert not before["classifier"].any()


def test_zeros_have_no_gradient_and_so_no_share_in_its_norm():
    model = sparse_model()
    words = {"input_ids": torch.arange(12).view(2, 6), "labels": torch.tensor([0, 1])}
    model.eval()(**words).loss.backward()
    free = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    context = Context(model, "text-classification")
    lock_sparsity.Modifier(lock_sparsity.Options(), context).on_start()
    model(**words).loss.backward()
    for name, gone in zeros(model).items():
        gradient = model.get_submodule(name).weight.grad
        assert torch.equal(gradient, free[f"{name}.weight"].masked_fill(gone, 0.0))
    assert (free["bert.pooler.dense.weight"][zeros(model)["bert.pooler.dense"]] != 0).any()


def test_a_table_of_words_is_no_sparse_matrix():
    config = tiny.config(labels=None)
    model = transformers.BertForMaskedLM(config)  # its decoder is the table, with a row of zeros
    assert (model.cls.predictions.decoder.weight[config.pad_token_id] == 0).all()
    with pytest.raises(InputError, match="no linear map"):
        lock_sparsity.Modifier(lock_sparsity.Options(), Context(model, "masked-lm")).on_start()


def test_what_is_excluded_comes_back():
    model = sparse_model()
    modifier = trained(model, lock_sparsity.Options(exclude="pooler"), steps=1)
    assert not (model.bert.pooler.dense.weight == 0).any()
    assert "bert.pooler.dense" not in modifier.masks


def test_a_dense_model_is_refused():
    context = Context(tiny.model(), "text-classification")
    with pytest.raises(InputError, match="no linear map of this one has any") as refused:
        lock_sparsity.Modifier(lock_sparsity.Options(), context).on_start()
    assert "compressor prune" in refused.value.hint


def test_the_pattern_survives_a_round_trip_of_the_state():
    model = sparse_model()
    modifier = trained(model, lock_sparsity.Options(), steps=1)
    other = lock_sparsity.Modifier(lock_sparsity.Options(), Context(model, "text-classification"))
    other.load_state_dict(modifier.state_dict())
    assert all(torch.equal(other.masks[name], mask) for name, mask in modifier.masks.items())


@pytest.mark.parametrize("verb", ["finetune sparse", "distill teacher --student sparse"])
def test_on_disk_and_under_every_training_verb(workshop, tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").symlink_to(workshop / "teacher")
    assert run("prune teacher --method magnitude --sparsity 0.85 -o sparse".split()) == 0
    training = f"--data {workshop}/data --epochs 2 --lr 1e-3 --weight-decay 0.1 -o out"
    assert run(f"{verb} --with lock_sparsity {training}".split()) == 0
    assert "training fills them" not in capsys.readouterr().err
    before, after = (load_file(name + "/model.safetensors") for name in ("sparse", "out"))
    held = [name for name, value in before.items() if (value == 0).float().mean() > 0.5]
    assert len(held) == 4 * 6
    for name in held:
        assert torch.equal(before[name] == 0, after[name] == 0), name
        assert not torch.equal(before[name], after[name])


def test_a_training_that_fills_the_zeros_says_so_first(workshop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        run(f"prune {workshop}/teacher --method magnitude --sparsity 0.85 -o sparse".split()) == 0
    )
    assert run(f"finetune sparse --data {workshop}/data --max-steps 1 -o out".split()) == 0
    said = capsys.readouterr().err
    assert "85% of the layers' weights are zeros" in said
    assert "--with lock_sparsity keeps them" in said
