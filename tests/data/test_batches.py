import subprocess
import sys

import numpy as np
import pytest

from compressor.data.batches import (
    Masking,
    collate,
    mask_tokens,
    plan_batches,
    token_weights,
)
from compressor.data.encode import Encoded
from compressor.data.tasks import TASKS

CLASSIFY, REGRESS = TASKS["text-classification"], TASKS["regression"]
MASKED, CAUSAL = TASKS["masked-lm"], TASKS["causal-lm"]


def encoded(*sequences, labels=None, types=None, max_length=512):
    lengths = [len(sequence) for sequence in sequences]
    return Encoded(
        ids=np.concatenate(sequences).astype(np.int32),
        offsets=np.cumsum([0, *lengths]),
        types=types,
        labels=labels,
        max_length=max_length,
    )


LENGTHS = np.random.default_rng(0).integers(3, 128, size=10_000)


def padding(plan):
    return sum(len(rows) * LENGTHS[rows].max() - LENGTHS[rows].sum() for rows in plan)


def test_every_sequence_once():
    for shuffle in (True, False):
        plan = plan_batches(LENGTHS, 32, seed=0, epoch=0, shuffle=shuffle)
        assert len(plan) == -(-len(LENGTHS) // 32)
        assert sorted(np.concatenate(plan).tolist()) == list(range(len(LENGTHS)))
        assert sorted(map(len, plan))[1:] == [32] * (len(plan) - 1)


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        return np.concatenate(plan_batches(LENGTHS, 32, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(2, 1)
    assert order(1, 2) != order(1, 3)


def test_another_process_draws_the_same():
    code = """
import numpy as np
from compressor.data.batches import plan_batches
lengths = np.random.default_rng(0).integers(3, 128, size=10_000)
print(np.concatenate(plan_batches(lengths, 32, seed=3, epoch=4))[:20].tolist())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = np.concatenate(plan_batches(LENGTHS, 32, seed=3, epoch=4))[:20].tolist()
    assert ran.stdout.strip() == str(here)


def test_buckets_reduce_padding():
    plan = plan_batches(LENGTHS, 32, seed=0, epoch=0)
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    plain = [order[i : i + 32] for i in range(0, len(order), 32)]
    assert padding(plan) < padding(plain) / 10
    assert padding(plan_batches(LENGTHS, 32, seed=0, epoch=0, shuffle=False)) < padding(plan)


def test_batches_are_not_run_in_order_of_length():
    longest = [LENGTHS[rows].max() for rows in plan_batches(LENGTHS, 32, seed=0, epoch=0)]
    falls = np.count_nonzero(np.diff(longest) < 0)
    assert 0.3 * len(longest) < falls < 0.7 * len(longest)


def test_evaluation_runs_the_longest_first():
    plan = plan_batches(LENGTHS, 32, seed=0, epoch=0, shuffle=False)
    assert LENGTHS[plan[0]].min() >= LENGTHS[plan[1]].max()


def test_collate_pads_to_a_multiple():
    made = encoded([5, 6, 7], [8], [9, 9, 9, 9, 9], labels=np.array([1, 0, 2]))
    batch = collate(made, np.array([2, 0]), pad_id=1, task=CLASSIFY, multiple_of=4)
    assert batch["input_ids"].tolist() == [[9] * 5 + [1] * 3, [5, 6, 7] + [1] * 5]
    assert batch["attention_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 3 + [0] * 5]
    assert batch["labels"].tolist() == [2, 1]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_collate_never_passes_the_longest_sequence_allowed():
    made = encoded([5] * 63, labels=np.array([0]), max_length=66)
    batch = collate(made, np.array([0]), pad_id=0, task=CLASSIFY, multiple_of=8)
    assert batch["input_ids"].shape == (1, 64)
    made = encoded([5] * 65, labels=np.array([0]), max_length=66)
    batch = collate(made, np.array([0]), pad_id=0, task=CLASSIFY, multiple_of=8)
    assert batch["input_ids"].shape == (1, 66)


def test_collate_types_and_numbers():
    made = encoded(
        [5, 6],
        [7, 8, 9],
        labels=np.array([0.5, 2.0], dtype=np.float32),
        types=np.array([0, 1, 0, 1, 1], dtype=np.uint8),
    )
    batch = collate(made, np.array([0, 1]), pad_id=0, task=REGRESS, multiple_of=1)
    assert batch["token_type_ids"].tolist() == [[0, 1, 0], [0, 1, 1]]
    assert batch["token_type_ids"].dtype == np.int64
    assert batch["labels"].dtype == np.float32


def test_collate_causal_lm():
    # the padding token may also be a word, as in GPT-2: only what is real is predicted
    made = encoded([0, 5, 0], [6])
    batch = collate(made, np.array([0, 1]), pad_id=0, task=CAUSAL, multiple_of=1)
    assert batch["labels"].tolist() == [[0, 5, 0], [6, -100, -100]]


def masked(seed=0, **changes):
    draw = np.random.default_rng(1)
    made = encoded(*[np.concatenate([[2], draw.integers(5, 1000, 62), [3]]) for _ in range(500)])
    options = {
        "mask_rng": np.random.default_rng(seed),
        "mask_id": 4,
        "vocab_size": 1000,
        "special_ids": (0, 1, 2, 3, 4),
        **changes,
    }
    indices = np.arange(len(made))
    plain = collate(made, indices, pad_id=0, task=CAUSAL)["input_ids"]
    return plain, collate(made, indices, pad_id=0, task=MASKED, **options)


def test_masking_statistics():
    plain, batch = masked()
    chosen = batch["labels"] != -100
    words = plain >= 5
    total = chosen.sum()
    assert abs(total / words.sum() - 0.15) < 0.01
    as_mask = (batch["input_ids"] == 4) & chosen
    kept = (batch["input_ids"] == plain) & chosen
    other = chosen & ~as_mask & ~kept
    assert abs(as_mask.sum() / total - 0.8) < 0.03
    assert abs(kept.sum() / total - 0.1) < 0.02
    assert abs(other.sum() / total - 0.1) < 0.02


def test_masking_leaves_special_tokens_alone():
    plain, batch = masked()
    special = plain < 5
    assert (batch["labels"][special] == -100).all()
    assert (batch["input_ids"][special] == plain[special]).all()
    chosen = batch["labels"] != -100
    assert (batch["labels"][chosen] == plain[chosen]).all()
    assert (batch["input_ids"][~chosen] == plain[~chosen]).all()
    # nor is one ever drawn as the other token
    assert set(np.unique(batch["input_ids"][chosen])) & {0, 1, 2, 3} == set()


def test_every_other_token_is_as_likely():
    ids = np.full((400, 400), 3)
    out, _ = mask_tokens(
        ids,
        np.ones_like(ids, dtype=bool),
        np.random.default_rng(0),
        mask_id=9,
        vocab_size=8,
        special_ids=(0, 4, 5, 99),
    )
    counts = np.bincount(out[(out != 9) & (out != 3)], minlength=8)
    assert counts[[0, 4, 5]].sum() == 0
    expected = 400 * 400 * 0.15 * 0.1 / 5
    assert np.abs(counts[[1, 2, 6, 7]] / expected - 1).max() < 0.2


def test_masking_is_drawn_from_the_generator():
    first, again, other = masked(0)[1], masked(0)[1], masked(1)[1]
    assert (first["input_ids"] == again["input_ids"]).all()
    assert (first["labels"] != other["labels"]).any()


def test_a_tiny_batch_has_something_to_predict():
    made = encoded([2, 7, 3])
    for seed in range(20):
        batch = collate(
            made,
            np.array([0]),
            pad_id=0,
            task=MASKED,
            mask_rng=np.random.default_rng(seed),
            mask_id=4,
            vocab_size=10,
            special_ids=(0, 2, 3, 4),
        )
        assert (batch["labels"] != -100).sum() == 1
        assert batch["labels"][0, 1] == 7


def test_masked_lm_without_a_generator_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="mask_rng"):
        masked(mask_rng=None)


def test_nothing_is_masked_at_probability_0():
    plain, batch = masked(masking=Masking(probability=0.0))
    assert (batch["input_ids"] == plain).all()
    assert (batch["labels"] == -100).all()


def test_the_plain_masks_are_the_ones_that_they_always_were():
    ids = np.arange(5, 29).reshape(2, 12)
    out, labels = mask_tokens(
        ids,
        np.ones_like(ids, dtype=bool),
        np.random.default_rng(0),
        mask_id=4,
        vocab_size=1000,
        special_ids=(0, 1, 2, 3, 4),
    )
    assert np.flatnonzero(labels.ravel() != -100).tolist() == [2, 3, 11, 13, 20, 21]
    assert out.ravel()[[2, 3, 11, 13, 20, 21]].tolist() == [7, 8, 4, 339, 4, 234]


@pytest.mark.parametrize("probability", [0.05, 0.15, 1.0])
def test_smoothing_draws_the_exact_share_of_all_real_tokens_once_each(probability):
    ids, real = zipf(), np.ones((40, 50), dtype=bool)
    real[:, 45:] = False
    _, labels = smoothed(ids, real, Masking(probability, 0.7))
    chosen = labels != -100
    maskable = real & (ids >= 5)
    assert not (chosen & ~maskable).any()
    assert chosen.sum() == min(np.ceil(probability * real.sum()), maskable.sum())
    assert (labels[chosen] == ids[chosen]).all()


def test_smoothing_prefers_rare_tokens_by_the_weights_ratio():
    assert token_weights(np.array([5, 5, 5, 5, 7]), 9, 0.5).tolist() == [1] * 5 + [0.5, 1, 1, 1]
    # 16 times as frequent with smoothing 0.5: drawn a quarter as often, place by place
    ids = np.where(np.arange(1700) % 17 == 0, 6, 5).reshape(17, 100)
    rates = np.zeros(2)
    for seed in range(300):
        _, labels = smoothed(ids, np.ones_like(ids, bool), Masking(0.01, 0.5), seed)
        rates += [(labels == 6).sum() / 100, (labels == 5).sum() / 1600]
    assert rates[0] / rates[1] == pytest.approx(4.0, rel=0.1)


def test_smoothing_is_drawn_from_the_generator():
    ids, real = zipf(), np.ones((40, 50), dtype=bool)
    first, again, other = (smoothed(ids, real, Masking(0.15, 0.7), seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[1] != other[1]).any()


def zipf():
    """[40, 50] ids from 1 to 999, small ones by far the most frequent."""
    return np.minimum(np.random.default_rng(0).zipf(1.3, (40, 50)), 999)


def smoothed(ids, real, masking, seed=0):
    return mask_tokens(
        ids,
        real,
        np.random.default_rng(seed),
        mask_id=4,
        vocab_size=1000,
        special_ids=(0, 1, 2, 3, 4),
        masking=masking,
        weights=token_weights(ids.ravel(), 1000, masking.smoothing),
    )
