"""The cubic ramp's hand values, and zeros that stay zero."""

import itertools

import pytest
import torch

import tiny
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.modifiers import gmp
from compressor.model.layers import encoder_linears


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(1.99, 0), (2, 0.7), (3, 0.8137), (4, 0.89), (5, 0.9363), (6, 0.96), (8, 0.97), (9, 0.97)],
)
def test_ramp_of_the_ten_epoch_recipe(epoch, expected):
    assert gmp.cubic_sparsity(epoch, 2, 8, 0.7, 0.97) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("epoch", "expected"), [(2, 0.5), (3, 0.6685), (5, 0.85), (8, 0.9)])
def test_ramp_with_a_smaller_first_step(epoch, expected):
    assert gmp.cubic_sparsity(epoch, 2, 8, 0.5, 0.9) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("epoch", "expected"), [(6, 0.7843), (14, 0.875), (26, 0.9)])
def test_ramp_of_the_thirty_epoch_recipe(epoch, expected):
    assert gmp.cubic_sparsity(epoch, 2, 26, 0.7, 0.9) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(1_000, 0.052927), (5_000, 0.2439), (25_000, 0.7875), (40_000, 0.8928), (60_000, 0.9)],
)
def test_plain_ramp_from_zero(step, expected):
    assert gmp.cubic_sparsity(step, 0, 50_000, 0.0, 0.9) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1_000, 1.02041),
        (1_999, 1.00002),
        (49_999, 1.00002),
        (50_000, 1.02041),
        (75_000, 0.5102041),
        (80_000, 0.408163),
        (99_999, 0.00002),
    ],
)
def test_rewound_learning_rate(step, expected):
    window = {"start": 0, "end": 50_000, "every": 1_000, "total": 100_000, "warmup": 1_000}
    assert gmp.rewound_rate(step, **window) == pytest.approx(expected, abs=1e-5)
    assert gmp.rewound_rate(500, **window) is None  # the plan's warm-up


@pytest.mark.parametrize(
    ("step", "expected"),
    [(100, 500), (299, 301), (300, 300), (309, 291), (310, 300), (699, 291), (700, 300), (999, 1)],
)
def test_a_window_that_opens_late_rewinds_to_where_it_opened(step, expected):
    window = {"start": 300, "end": 700, "every": 10, "total": 1_000, "warmup": 60}
    assert gmp.rewound_rate(step, **window) == pytest.approx(expected / 540)


def test_only_a_rewound_rate_departs_from_the_plan():
    context = Context(
        tiny.model(),
        "text-classification",
        total_steps=100,
        steps_per_epoch=10,
        learning_rate=0.1,
        warmup_steps=2,
    )
    plain, rewound = (gmp.Modifier(gmp.Options(rewind=flag), context) for flag in (False, True))
    assert plain.learning_rate(50, 0.03) == 0.03
    assert rewound.learning_rate(1, 0.03) == 0.03
    assert rewound.learning_rate(50, 0.03) == pytest.approx(0.1 * 30 / 28)
    assert rewound.learning_rate(85, 0.03) == pytest.approx(0.1 * 15 / 28)


def train(options, steps=20, steps_per_epoch=10, model=None):
    """AdamW with decay on random gradients, which moves every weight that is not held."""
    model = model or tiny.model()
    context = Context(
        model, "text-classification", total_steps=steps, steps_per_epoch=steps_per_epoch
    )
    modifier = gmp.Modifier(options, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    seen = []
    modifier.on_start()
    for step in range(steps):
        modifier.before_step(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        modifier.after_step(step)
        seen.append({n: m.weight == 0 for n, m in encoder_linears(model).items()})
    modifier.on_finish()
    return model, modifier, seen


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_every_matrix_ends_with_exactly_the_floor_of_its_share(sparsity):
    model, _, _ = train(gmp.Options(sparsity=sparsity))
    for name, module in encoder_linears(model).items():
        zeros = int((module.weight == 0).sum())
        assert zeros == int(sparsity * module.weight.numel()), name
    outside = {id(m.weight) for m in encoder_linears(model).values()}
    assert all((p != 0).any() for p in model.parameters() if id(p) not in outside)


def test_what_is_pruned_stays_pruned_and_nothing_changes_after_the_window():
    _, _, seen = train(gmp.Options(sparsity=0.8, prune_end=0.5))
    for earlier, later in itertools.pairwise(seen):
        for name, zeros in earlier.items():
            assert (later[name] | ~zeros).all()
    closed = seen[10]
    assert all(torch.equal(seen[-1][name], zeros) for name, zeros in closed.items())


def test_global_scope_counts_over_all_matrices():
    model, _, _ = train(gmp.Options(sparsity=0.7, scope="global"))
    weights = [m.weight for m in encoder_linears(model).values()]
    zeros = sum(int((w == 0).sum()) for w in weights)
    assert zeros == int(0.7 * sum(w.numel() for w in weights))
    assert len({int((w == 0).sum()) / w.numel() for w in weights}) > 1


def test_only_weights_at_the_final_sparsity_are_settled():
    modifier = gmp.Modifier(
        gmp.Options(prune_end=0.5),
        Context(tiny.model(), "text-classification", total_steps=20, steps_per_epoch=10),
    )
    assert not modifier.settled(9)
    assert modifier.settled(10)


def test_masks_survive_a_round_trip_of_the_state():
    _, modifier, _ = train(gmp.Options(sparsity=0.5), steps=8)
    other = gmp.Modifier(
        gmp.Options(sparsity=0.5),
        Context(tiny.model(), "text-classification", total_steps=8, steps_per_epoch=10),
    )
    other.load_state_dict(modifier.state_dict())
    assert all(torch.equal(other.masks[name], mask) for name, mask in modifier.masks.items())


def test_a_window_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="initial-sparsity"):
        gmp.Options(sparsity=0.5, initial_sparsity=0.7)
    with pytest.raises(UsageError, match="prune-end"):
        gmp.Options(prune_start=0.8, prune_end=0.2)


@pytest.mark.parametrize(("sparsity", "expected"), [(0.5, 0.6), (0.9, 0.9)])
def test_zeros_of_a_sparse_model_stay(sparsity, expected):
    sparse, *_ = train(gmp.Options(sparsity=0.6, prune_end=0.1))
    before = {name: module.weight == 0 for name, module in encoder_linears(sparse).items()}
    model, _, seen = train(gmp.Options(sparsity=sparsity), model=sparse)
    for zeros in seen:
        assert all(zeros[name][gone].all() for name, gone in before.items())
    for module in encoder_linears(model).values():
        assert int((module.weight == 0).sum()) == int(expected * module.weight.numel())


def test_pruned_weights_have_no_gradient():
    model, modifier, _ = train(gmp.Options(sparsity=0.8))
    model.zero_grad()
    words = torch.arange(12).view(2, 6)
    model(input_ids=words, labels=torch.tensor([0, 1])).loss.backward()
    for name, module in modifier.modules.items():
        assert (module.weight.grad[~modifier.masks[name]] == 0).all()
        assert (module.weight.grad[modifier.masks[name]] != 0).any()
