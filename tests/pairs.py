"""A student, a teacher and a padded batch, as an objective meets them."""

from __future__ import annotations

from dataclasses import replace

import torch

import tiny
from compressor.methods.contract import Context
from compressor.model.views import HIDDEN, LOGITS, Views, look


def batch(labels=(1, 0)) -> dict[str, torch.Tensor]:
    """Two rows, the first of which is padded."""
    tokens = tiny.tokenizer()(
        ["great film", "a very long awful dull plot"], padding=True, return_tensors="pt"
    )
    assert (tokens["attention_mask"] == 0).any()
    return {**tokens, "labels": torch.tensor(labels)}


def views(model, rows) -> Views:
    """What `model` shows of `rows`."""
    shows = frozenset({LOGITS, HIDDEN})
    return look(model, rows, shows, bare=model)


def detached(seen: Views) -> Views:
    """The same tensors without their history, as a teacher's are."""
    logits = None if seen.logits is None else seen.logits.detach()
    return replace(seen, logits=logits, hidden=tuple(state.detach() for state in seen.hidden))


def headless(seen: Views) -> Views:
    """What a model without a head shows."""
    return replace(seen, logits=None)


def noisy_padding(seen: Views, mask: torch.Tensor, seed: int = 0) -> Views:
    """The same views with large random numbers at the padded positions."""
    draw = torch.Generator().manual_seed(seed)
    padded = (mask == 0)[..., None]

    def noisy(states: torch.Tensor) -> torch.Tensor:
        return torch.where(padded, 50 * torch.randn(states.shape, generator=draw), states)

    logits = seen.logits
    if logits is not None and logits.dim() == 3:
        logits = noisy(logits)
    return replace(seen, logits=logits, hidden=tuple(noisy(state) for state in seen.hidden))


def context(student, teacher, task="text-classification", **facts) -> Context:
    """The context of a run that trains `student`."""
    return Context(student, task, student.config, teacher.config, **facts)


def assert_finite_gradients(loss, *modules) -> None:
    """Run the backward pass and look at every gradient; some must be there and not zero."""
    loss.total.backward()
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def assert_ignores_padding(make, student, teacher, rows) -> None:
    """The loss of the objective that `make()` gives is the same whatever stands in padding."""
    objective, mask = make(), rows["attention_mask"]
    plain = objective.loss(rows, student, teacher).total
    noisy = objective.loss(
        rows, noisy_padding(student, mask, 1), noisy_padding(teacher, mask, 2)
    ).total
    assert plain.item() > 0
    torch.testing.assert_close(noisy, plain, rtol=1e-6, atol=1e-7)
