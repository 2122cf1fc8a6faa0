"""SAM and its relatives: closed forms on quadratics, and through the command line."""

import json

import pytest
import torch
from torch import nn

import tiny
from compressor.cli import run
from compressor.methods.ascent import ascent, moved
from compressor.methods.contract import Context
from compressor.methods.modifiers import asam, delta_sam, sam


class Quadratic(nn.Module):
    """L = mean over rows of (w^T diag(h_i) w) / 2."""

    def __init__(self, weights, curvatures):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.curvatures = torch.tensor(curvatures, dtype=torch.float64)  # [rows, weights]

    def rows(self):
        return (self.curvatures * self.weight.flatten().square()).sum(1) / 2


class Passes:
    """The passes of a quadratic, counted."""

    def __init__(self, model):
        self.model, self.parts, self.calls = model, {}, []

    def __call__(self):
        self.calls.append("pass")
        return self._back(self.model.rows().mean())

    def uphill(self, weights=None):
        if weights is None:
            return self()
        self.calls.append("weighted")
        rows = self.model.rows()
        self._back((rows * weights).mean())
        self.parts["loss"] = float(rows.mean().detach())
        return self.parts["loss"]

    def row_losses(self):
        self.calls.append("look")
        return self.model.rows().detach()

    def row_gradient_norms(self):
        self.calls.append("norms")
        return (self.model.curvatures * self.model.weight.detach().flatten()).norm(dim=1)

    def _back(self, loss):
        self.model.zero_grad()
        loss.backward()
        loss = float(loss.detach())
        self.parts = {"loss": loss, "gradient_norm": float(self.model.weight.grad.norm())}
        return loss


def made(module, options, model):
    return module.Modifier(options, Context(model, "text-classification"))


def close(values, wanted):
    torch.testing.assert_close(
        values, torch.tensor(wanted, dtype=torch.float64), atol=1e-7, rtol=1e-6
    )


def test_sam_on_a_quadratic_as_worked_out_by_hand():
    model = Quadratic([1.0, 1.0], [[4.0, 1.0]])
    passes = Passes(model)
    made(sam, sam.Options(rho=0.05), model).gradients(passes)
    close(model.weight.grad, [4.1940285, 1.0121268])
    close(model.weight.detach(), [1.0, 1.0])
    assert passes.parts["sharpness"] == pytest.approx(0.2109347, abs=1e-7)
    assert passes.parts["loss"] == 2.5
    assert passes.calls == ["pass", "pass"]
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    close(model.weight.detach(), [0.5805971, 0.8987873])


def test_the_step_uphill_by_hand():
    model = Quadratic([1.0, 1.0], [[4.0, 1.0]])
    Passes(model)()
    close(ascent([model.weight], 0.05)[0], [0.0485071, 0.0121268])


def test_asam_on_a_quadratic_as_worked_out_by_hand():
    model = Quadratic([[1.0, 2.0]], [[4.0, 1.0]])
    Passes(model)()
    scale = asam.scale_of(model.weight, 0.0)
    close(ascent([model.weight], 0.5, [scale])[0], [[0.3535534, 0.7071068]])


def test_asam_does_not_see_how_scale_is_spread_over_layers():
    """f = a b x: (10 a, b / 10) is the same function, with the same sharpness for ASAM alone."""

    def sharpness(module, options, first, second):
        class Product(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Parameter(torch.tensor([[first]], dtype=torch.float64))
                self.b = nn.Parameter(torch.tensor([[second]], dtype=torch.float64))
                self.weight = self.a  # whose gradient the log shows

            def rows(self):
                return (self.a @ self.b - 1).square().flatten()

        model = Product()
        passes = Passes(model)
        made(module, options, model).gradients(passes)
        return passes.parts["sharpness"]

    adaptive = asam.Options(adaptive_rho=0.1, adaptive_eta=0.0)
    same = sharpness(asam, adaptive, 2.0, 3.0)
    assert sharpness(asam, adaptive, 20.0, 0.3) == pytest.approx(same, rel=1e-9)
    plain = sam.Options(rho=0.1)
    assert sharpness(sam, plain, 20.0, 0.3) > 2 * sharpness(sam, plain, 2.0, 3.0)


def test_vectors_are_not_scaled():
    assert asam.scale_of(torch.tensor([3.0, -4.0]), 0.01).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("module", [sam, asam])
def test_a_radius_of_zero_is_plain_training_to_the_bit(module):
    options = sam.Options(rho=0.0) if module is sam else asam.Options(adaptive_rho=0.0)
    model = Quadratic([1.0, -2.0], [[4.0, 1.0], [0.3, 0.7]])
    Passes(model)()
    plain = model.weight.grad.clone()
    made(module, options, model).gradients(Passes(model))
    assert torch.equal(model.weight.grad, plain)


def test_weights_come_back_to_the_bit_also_after_an_error():
    weight = nn.Parameter(torch.randn(50))
    before = weight.detach().clone()

    def fail():
        with moved([weight], [torch.randn(50)]):
            assert not torch.equal(weight, before)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(weight.detach(), before)


def test_frozen_weights_stay_out_of_the_norm():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    modifier = made(sam, sam.Options(), model)
    assert [p.shape for p in modifier.parameters] == [(2, 2)]


def test_a_gradient_that_is_not_finite_leads_nowhere():
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([1.0, torch.inf, 2.0])
    assert ascent([weight], 0.05)[0].tolist() == [0.0, 0.0, 0.0]


HESSIANS = [[8.0, 0.0], [0.0, 2.0]]


def test_the_curvature_of_rows_by_hand():
    model = Quadratic([0.5, 1.0], HESSIANS)
    z = torch.tensor([0.3, -1.2], dtype=torch.float64)
    looks = [model.rows().detach()]
    for sign in (1, -1):
        with moved([model.weight], [z], by=sign):
            looks.append(model.rows().detach())
    here, up, down = looks
    close((up + down - 2 * here).abs(), [0.72, 2.88])
    weights, seen = delta_sam.row_weights(here, up, down, 1.0, clip=4.0)
    assert seen.all()
    close(weights, [0.4, 1.6])


def test_the_mean_curvature_over_draws_is_the_trace():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 2, generator=draw, dtype=torch.float64)
    found = (torch.tensor(HESSIANS, dtype=torch.float64)[:, None] * z.square()).sum(-1).mean(1)
    model = Quadratic([0.5, 1.0], HESSIANS)
    here, means = model.rows().detach(), torch.zeros(2, dtype=torch.float64)
    for one in z:
        with moved([model.weight], [one]):
            up = model.rows().detach()
        with moved([model.weight], [one], by=-1):
            means += (up + model.rows().detach() - 2 * here).abs() / len(z)
    close(means, found.tolist())
    assert means.tolist() == pytest.approx([8.0, 2.0], rel=0.1)


def test_the_climb_of_weighted_rows_by_hand():
    model = Quadratic([0.5, 1.0], HESSIANS)
    passes = Passes(model)
    passes.uphill(torch.tensor([1.6, 0.4]))
    close(ascent([model.weight], 0.1)[0], [0.0992278, 0.0124035])
    passes()
    close(ascent([model.weight], 0.1)[0], [0.0894427, 0.0447214])


def test_curvature_over_the_gradient_by_hand():
    """Curvatures 8 and 2 at gradients of length 4 and 2: they weigh 2 to 1."""
    here = torch.tensor([1.0, 1.0], dtype=torch.float64)
    up = here + torch.tensor([8.0, 2.0], dtype=torch.float64)
    norms = torch.tensor([4.0, 2.0], dtype=torch.float64)
    weights, _ = delta_sam.row_weights(here, up, here, 1.0, 4.0, norms)
    close(weights, [4 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("rows", "even"),
    [
        (HESSIANS, {"delta_clip": 1.0}),
        (HESSIANS, {"delta_weight": "uniform"}),
        (HESSIANS[:1], {"delta_clip": 4.0}),
    ],
    ids=["weights 1", "uniform", "one row"],
)
def test_delta_sam_with_even_weights_is_sam(rows, even):
    gradients = []
    for module, options in (
        (sam, sam.Options(rho=0.1)),
        (delta_sam, delta_sam.Options(delta_rho=0.1, **even)),
    ):
        model = Quadratic([0.5, 1.0], rows)
        made(module, options, model).gradients(Passes(model))
        gradients.append(model.weight.grad)
    assert torch.equal(*gradients)


def test_delta_sam_looks_three_times_and_the_weights_stay():
    model = Quadratic([0.5, 1.0], HESSIANS)
    passes = Passes(model)
    modifier = made(delta_sam, delta_sam.Options(delta_noise=0.1), model)
    modifier.before_step(3)
    modifier.gradients(passes)
    assert passes.calls == ["look", "look", "look", "weighted", "pass"]
    close(model.weight.detach(), [0.5, 1.0])
    assert passes.parts["loss"] == pytest.approx(1.0)
    assert passes.parts["lightest"] < 1 < passes.parts["heaviest"]
    kept = modifier.on_kept()
    assert kept.pop("delta_looks_ms") > 0
    assert kept == {"delta_lost_in_rounding": 0.0}


class Sparse(Quadratic):
    """Half of whose weights are zeros that it must not leave."""

    def __init__(self):
        super().__init__([[1.0, 0.0] * 50], [[1.0] * 100] * 2)
        self.curvatures = torch.tensor([[3.0, 1e9] * 50, [1.0, 1e9] * 50], dtype=torch.float64)

    def rows(self):
        zeros = self.weight.flatten()[1::2]
        assert not zeros.any()
        return super().rows()


def test_delta_sam_looks_at_the_sparse_model():
    model = Sparse()
    passes = Passes(model)
    made(delta_sam, delta_sam.Options(delta_noise=0.1), model).gradients(passes)
    assert passes.parts["heaviest"] / passes.parts["lightest"] == pytest.approx(3, rel=1e-6)


def test_rows_whose_curvature_rounding_hides_weigh_little_and_alike_where_it_hides_all():
    here = torch.tensor([1.0, 1.0, 1.0])
    up = here + torch.tensor([1e-7, 2e-3, 4e-3])
    weights, seen = delta_sam.row_weights(here, up, here, 1e-3, clip=4.0)
    assert seen.tolist() == [False, True, True]
    assert weights.tolist() == pytest.approx([1 / 4 / 1.0833, 1 / 1.0833, 2 / 1.0833], rel=1e-3)
    weights, seen = delta_sam.row_weights(here, here, here, 1e-3, clip=4.0)
    assert weights.tolist() == [1.0] * 3
    assert not seen.any()


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


@pytest.mark.parametrize("name", ["sam", "asam", "delta_sam"])
@pytest.mark.parametrize("verb", ["finetune teacher", "distill teacher --layers 1"])
def test_under_the_verbs_that_train(name, verb, here):
    words = f"{verb} --data data --epochs 1 --batch-size 16 --accumulate 2 --with {name} -o out"
    assert run(words.split()) == 0
    history = json.loads((here / "out/compression.json").read_text())["steps"][-1]
    if name == "delta_sam":
        assert 0 <= history["metrics"]["delta_lost_in_rounding"] <= 1


def test_curvature_through_rounding_is_refused(here, capsys):
    words = "finetune teacher --data data --with delta_sam --with qat -o out"
    assert run(words.split()) == 2
    assert "--with sam --with qat" in capsys.readouterr().err


def test_two_ways_to_make_a_gradient_are_refused(here, capsys):
    words = "finetune teacher --data data --with sam --with asam -o out"
    assert run(words.split()) == 2
    assert "--with sam and asam" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_rows_without_a_loss_of_their_own_are_refused(here, capsys):
    words = "distill teacher --layers 1 --data data --method hidden_mse --with delta_sam -o out"
    assert run(words.split()) == 2
    assert "--with sam" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "finetune teacher --data data --with qat --max-steps 2",
        "distill teacher --layers 1 --data data --method hidden_mse --max-steps 2",
    ],
)
def test_rows_that_weigh_alike_need_no_loss_of_their_own(words, here):
    alike = "--with delta_sam --delta-weight uniform -o out"
    assert run(f"{words} {alike}".split()) == 0


def test_the_loss_of_rows_adds_up_to_the_loss_of_the_batch():
    from compressor.methods.objectives import soft_labels, task
    from compressor.model.views import Views
    from compressor.train.criterion import Criterion

    model = tiny.model().eval()
    context = Context(model, "text-classification")
    objectives = [
        task.Objective(task.Options(), context),
        soft_labels.Objective(soft_labels.Options(), context),
    ]
    criterion = Criterion(objectives, context)
    assert criterion.has_rows
    texts = [row["text"] for row in tiny.rows(6)]
    batch = {**tiny.tokenizer()(texts, padding=True, return_tensors="pt")}
    batch["labels"] = torch.tensor([0, 1, 0, 1, 1, 0])
    taught = Views(logits=torch.randn(6, 2))
    rows, parts = criterion.by_row(batch, lambda _: taught)
    assert rows.shape == (6,)
    assert rows.std() > 0
    whole = criterion(batch, lambda _: taught)
    torch.testing.assert_close(rows.mean(), whole.total)
    torch.testing.assert_close(parts, whole.parts)
