"""Hand values of the triple loss, and the mistakes that would go unnoticed."""

import pytest
import torch
from torch.nn import functional as F

import tiny
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.objectives import distilbert
from compressor.model.views import HIDDEN, LOGITS, Views, look

TEACHER = torch.tensor([[2.0, 0.0, -2.0], [1.0, 1.0, 0.0]])
STUDENT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
BOTH = torch.tensor([True, True])
NONE = torch.tensor([-100, -100])


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.310562), (2.0, 0.445571)])
def test_hand_values_of_the_softened_words(temperature, expected):
    soft, hard, squared = distilbert.word_losses(STUDENT, TEACHER, BOTH, NONE, temperature)
    assert soft.item() == pytest.approx(expected, abs=1e-6)
    assert (hard.item(), squared.item()) == (0.0, 0.0)


def test_hand_values_of_the_other_terms():
    student = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    teacher = torch.tensor([[[4.0, 3.0], [0.0, 1.0]]])
    cosine = distilbert.cosine_loss(student, teacher, torch.ones(1, 2))
    assert cosine.item() == pytest.approx(0.52, abs=1e-6)  # (1 - 24/25 + 1 - 0) / 2
    targets = torch.tensor([-100, 1])
    _, hard, squared = distilbert.word_losses(STUDENT, TEACHER, BOTH, targets, 2.0, squares=True)
    assert hard.item() == pytest.approx(F.cross_entropy(STUDENT[1:], targets[1:]).item())
    assert squared.item() == pytest.approx(((1 + 0 + 4) + (1 + 1 + 0)) / 2)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunks_change_neither_value_nor_gradient(chunk, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(10, 7, generator=draw) for _ in range(2))
    compared = torch.arange(10) % 3 > 0
    targets = torch.where(torch.arange(10) % 4 == 0, 5, -100)
    plain = student.clone().requires_grad_()
    log_student, log_teacher = ((z[compared] / 2).log_softmax(-1) for z in (plain, teacher))
    soft = 4 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    (soft + F.cross_entropy(plain, targets)).backward()
    monkeypatch.setattr(distilbert, "CHUNK", chunk)
    own = student.clone().requires_grad_()
    found = distilbert.word_losses(own, teacher, compared, targets, 2.0)
    (found[0] + found[1]).backward()
    assert found[0].item() == pytest.approx(soft.item(), rel=1e-5)
    torch.testing.assert_close(own.grad, plain.grad)


def views(model, batch):
    return look(model, batch, frozenset({LOGITS, HIDDEN}), bare=model)


def scene(task="masked-lm", **options):
    """An objective, its batch, and what a random student and teacher show of it."""
    head = "AutoModelForMaskedLM" if task == "masked-lm" else "AutoModelForCausalLM"
    family = "bert" if task == "masked-lm" else "gpt2"
    student, teacher = (tiny.model(family, head=head, labels=None, seed=n) for n in (0, 1))
    tokens = tiny.tokenizer()(
        ["great film", "a very long awful dull plot"], padding=True, return_tensors="pt"
    )
    real = tokens["attention_mask"] == 1
    labels = torch.where(real, tokens["input_ids"], -100)
    if task == "masked-lm":
        labels[:, 2:] = -100
    context = Context(student, task, student.config, teacher.config)
    objective = distilbert.Objective(distilbert.Options(**options), context)
    batch = {**tokens, "labels": labels}
    return objective, batch, views(student, batch), views(teacher, batch)


def test_the_terms_are_those_of_the_paper_and_add_up():
    objective, batch, student, teacher = scene(logit_mse_weight=0.5)
    loss = objective.loss(batch, student, teacher)
    real = batch["attention_mask"].bool()
    log_student, log_teacher = ((v.logits[real] / 2).log_softmax(-1) for v in (student, teacher))
    soft = 4 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    hard = F.cross_entropy(student.logits.flatten(0, 1), batch["labels"].flatten())
    cosine = 1 - F.cosine_similarity(student.hidden[-1][real], teacher.hidden[-1][real], dim=-1)
    assert loss.parts["soft"].item() == pytest.approx(soft.item(), rel=1e-5)
    assert loss.parts["hard"].item() == pytest.approx(hard.item(), rel=1e-5)
    assert loss.parts["cosine"].item() == pytest.approx(cosine.mean().item(), rel=1e-5)
    parts = [loss.parts[name].item() for name in ("soft", "hard", "cosine", "logit_mse")]
    total = 5 * parts[0] + 2 * parts[1] + parts[2] + 0.5 * parts[3]
    assert loss.total.item() == pytest.approx(total, rel=1e-5)


def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it():
    objective, batch, _, teacher = scene()
    loss = objective.loss(batch, teacher, teacher)
    assert loss.parts["soft"].item() == pytest.approx(0.0, abs=1e-5)
    assert loss.parts["cosine"].item() == pytest.approx(0.0, abs=1e-5)
    assert loss.parts["hard"].item() > 1


def test_padding_changes_no_term():
    objective, batch, student, teacher = scene(logit_mse_weight=1.0)
    whole = objective.loss(batch, student, teacher)
    draw = torch.Generator().manual_seed(7)

    def longer(tensor, fill):
        more = torch.full((2, 5, *tensor.shape[2:]), fill, dtype=tensor.dtype)
        return torch.cat([tensor, more], dim=1)

    def noisy(seen):
        logits = longer(seen.logits, 0.0)
        logits[:, -5:] = 50 * torch.randn(logits[:, -5:].shape, generator=draw)
        return Views(logits, tuple(longer(states, 9.0) for states in seen.hidden))

    padded = {"attention_mask": longer(batch["attention_mask"], 0)}
    padded["labels"] = longer(batch["labels"], -100)
    found = objective.loss(padded, noisy(student), noisy(teacher))
    assert found.parts.keys() == whole.parts.keys()
    for name, value in whole.parts.items():
        assert found.parts[name].item() == pytest.approx(value.item(), abs=1e-6, rel=1e-6)


def test_only_the_masked_words_on_request():
    objective, batch, student, teacher = scene(ce_positions="masked")
    soft = objective.loss(batch, student, teacher).parts["soft"]
    chosen = batch["labels"] != -100
    log_student, log_teacher = ((v.logits[chosen] / 2).log_softmax(-1) for v in (student, teacher))
    wanted = 4 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    assert soft.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_causal_model_is_asked_for_the_next_word():
    objective, batch, student, teacher = scene("causal-lm")
    loss = objective.loss(batch, student, teacher)
    logits, labels = student.logits[:, :-1], batch["labels"][:, 1:]
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert loss.parts["hard"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert (batch["labels"][:, 0] != -100).all()  # not changed on the way


def test_without_masked_words_the_other_terms_train_on():
    objective, batch, student, teacher = scene(mlm_probability=0.0)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = objective.loss(batch, student, teacher)
    assert loss.parts["hard"].item() == 0.0
    assert loss.total.isfinite()
    with pytest.raises(UsageError, match="masked"):
        scene(mlm_probability=0.0, ce_positions="masked")
    with pytest.raises(UsageError, match="masked"):
        scene("causal-lm", ce_positions="masked")


def test_other_widths_are_refused_unless_no_states_are_compared():
    student, teacher = (
        tiny.model(head="AutoModelForMaskedLM", labels=None, hidden_size=width)
        for width in (16, 32)
    )
    context = Context(student, "masked-lm", student.config, teacher.config)
    with pytest.raises(UsageError, match="16 wide") as refused:
        distilbert.Objective(distilbert.Options(), context)
    assert "--cosine-weight 0" in refused.value.hint
    only_words = distilbert.Objective(distilbert.Options(cosine_weight=0.0), context)
    assert only_words.student_shows == only_words.teacher_shows == {LOGITS}
