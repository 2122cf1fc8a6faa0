"""CutMix on numbers that a person can check, and in a run."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tiny
from compressor.cli import run
from compressor.methods.contract import Context
from compressor.methods.modifiers import cutmix
from compressor.methods.objectives.task import task_loss


def modifier(classes=3, **options):
    config = type("Config", (), {"num_labels": classes})
    context = Context(model=None, task="image-classification", student_config=config)
    return cutmix.Modifier(cutmix.Options(**options), context)


def batch(count=4):
    pixels = torch.arange(count).float()[:, None, None, None].expand(count, 1, 8, 8).clone()
    return {"pixel_values": pixels, "labels": torch.arange(count) % 3, "rows": torch.arange(count)}


def test_a_patch_by_hand():
    pixels = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    labels = torch.eye(2)
    patch = slice(0, 2), slice(1, 3)  # 4 of 16 points
    mixed, shares = cutmix.mix(pixels, labels, torch.tensor([1, 0]), patch)
    assert mixed[0, 0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert (mixed[1] == 1 - mixed[0]).all()
    assert shares.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert pixels[0].sum() == 0  # the images themselves stay


def test_the_box_has_the_share_and_is_cut_at_the_edge():
    class Middle:
        def integers(self, size):
            return self.place if self.place < size else size - 1

    draw = Middle()
    draw.place = 8
    assert cutmix.box(16, 16, 0.75, draw) == (slice(4, 12), slice(4, 12))  # a quarter
    assert cutmix.box(16, 32, 0.75, draw) == (slice(4, 12), slice(0, 16))
    draw.place = 0
    assert cutmix.box(16, 16, 0.75, draw) == (slice(0, 4), slice(0, 4))
    nothing = cutmix.box(16, 16, 1.0, draw)
    assert nothing == (slice(0, 0), slice(0, 0))


def test_the_loss_of_a_mixed_row_is_that_of_both_labels():
    logits, first, second = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1] * 5)
    shares = 0.7 * F.one_hot(first, 3) + 0.3 * F.one_hot(second, 3)
    wanted = 0.7 * F.cross_entropy(logits, first) + 0.3 * F.cross_entropy(logits, second)
    torch.testing.assert_close(task_loss("image-classification", logits, shares), wanted)


def test_how_often_and_what_becomes_of_the_labels():
    made = modifier(cutmix_probability=0.25)
    seen = [made.batch(batch(), np.random.default_rng(n)) for n in range(400)]
    mixed = [one for one in seen if "rows" not in one]
    assert 70 < len(mixed) < 130
    for one in mixed:
        own = (
            (one["pixel_values"] == torch.arange(4.0)[:, None, None, None]).float().mean((1, 2, 3))
        )
        shares = one["labels"][torch.arange(4), torch.arange(4) % 3]
        assert torch.allclose(one["labels"].sum(1), torch.ones(4))
        assert (shares >= own - 1e-6).all()  # above where the other image has the same class


def test_where_nothing_is_mixed():
    never, always = modifier(cutmix_probability=0.0), modifier(cutmix_probability=1.0)
    given, draw = batch(), np.random.default_rng(0)
    assert never.batch(given, draw) is given
    given["labels"][1] = -100  # a row without a label
    assert always.batch(given, draw) is given


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.images(tmp_path / "d", train=32)
    tiny.vit(tmp_path / "vit")
    return tmp_path


QUICK = "--epochs 1 --batch-size 16 --precision fp32"


def losses(folder):
    entries = json.loads((folder / "run.json").read_text())["curve"]
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_it_changes_training_and_a_teacher_sees_what_the_student_sees(here):
    words = f"finetune vit --data d {QUICK}"
    assert run(f"{words} -o plain".split()) == 0
    assert run(f"{words} --with cutmix --cutmix-probability 0 -o never".split()) == 0
    mixed = "--with cutmix --cutmix-probability 1 --cutmix-alpha 1"
    assert run(f"{words} {mixed} -o always".split()) == 0
    assert losses(here / "plain") == losses(here / "never") != losses(here / "always")
    # A student that is its teacher has nothing to learn, from whatever both are shown.
    words = f"distill plain --layers 2 --method soft_labels --hard-weight 0 --data d {QUICK}"
    assert run(f"{words} {mixed} --lr 0 -o same".split()) == 0
    assert max(losses(here / "same")) < 1e-9


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("finetune bert --with cutmix --data texts", 2, "cutmix serves image-classification"),
        ("distill vit --method dkd --with cutmix --data d", 2, "dkd needs one for each row"),
        ("distill large --student vit --with cutmix --data d", 2, "the teacher reads in another"),
    ],
)
def test_what_it_does_not_go_with(words, code, said, here, capsys):
    tiny.checkpoint(here / "bert")
    tiny.data(here / "texts", train=4, validation=4)
    tiny.vit(here / "large", side=32, labels=tiny.COLOURS)
    assert run(f"{words} -o made".split()) == code
    assert said in capsys.readouterr().err
