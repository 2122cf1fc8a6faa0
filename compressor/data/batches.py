"""Batches: which rows go together, and their token ids padded into arrays.

Rows of like length share a batch, so that little of the arithmetic is spent on padding. All of it
is decided by (seed, epoch): a run that is killed and resumed sees the batches it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressor.data.encode import Encoded
from compressor.data.tasks import Task

# Rows are sorted by length inside groups of this many batches: enough to save most of the padding,
# few enough that a batch is still a random draw.
BATCHES_SORTED_TOGETHER = 50
# BERT (Devlin et al., 2019), section 3.1
MASK_TOKEN_SHARE = 0.8
RANDOM_TOKEN_SHARE = 0.1
IGNORED = -100
# Counting copies the ids: not those of all rows at once.
COUNTED_TOGETHER = 10_000_000


@dataclass(frozen=True)
class Masking:
    """Which tokens a masked language model is asked about.

    Attributes:
        probability: share of the tokens; 0 leaves the text as it is and asks nothing.
        smoothing: 0 draws every token alike (BERT). Above 0 the share is met exactly in every
            batch, and a token is drawn in proportion to max(count, 1) to the power of minus this
            (DistilBERT, after XLM): rare words come more often.
    """

    probability: float = 0.15
    smoothing: float = 0.0


PLAIN = Masking()


def token_weights(ids: np.ndarray, vocab_size: int, smoothing: float) -> np.ndarray:
    """max(count, 1) ** -smoothing of every token id, float64 [at least vocab_size].

    Args:
        ids: int [tokens] of all rows.
        vocab_size: how many tokens there are.
        smoothing: 0 for weights that are all alike.
    """
    counts = np.zeros(max(vocab_size, int(ids.max()) + 1), dtype=np.int64)
    for start in range(0, len(ids), COUNTED_TOGETHER):
        counts += np.bincount(ids[start : start + COUNTED_TOGETHER], minlength=len(counts))
    return np.maximum(counts, 1.0) ** -smoothing


def plan_batches(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True
) -> list[np.ndarray]:
    """Which sequences form each batch, every sequence once.

    Args:
        lengths: int [sequences], tokens of each.
        batch_size: sequences of a batch; the last one drawn may have fewer.
        seed: at least 0.
        epoch: at least 0; each epoch has its own order.
        shuffle: False sorts all sequences by length, the longest first, so that an evaluation
            pads least and runs out of memory at once or never.

    Returns:
        One int64 array of indices a batch, in the order to run them.
    """
    lengths = np.asarray(lengths)
    if not shuffle:
        order = np.argsort(-lengths, kind="stable")
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    draw = np.random.default_rng((seed, epoch))
    order = draw.permutation(len(lengths))
    group = BATCHES_SORTED_TOGETHER * batch_size
    batches: list[np.ndarray] = []
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def collate(
    encoded: Encoded,
    indices: np.ndarray,
    *,
    pad_id: int,
    task: Task,
    mask_rng: np.random.Generator | None = None,
    mask_id: int | None = None,
    vocab_size: int | None = None,
    special_ids: Sequence[int] = (),
    masking: Masking = PLAIN,
    weights: np.ndarray | None = None,
    multiple_of: int = 1,
) -> dict[str, np.ndarray]:
    """Pad the sequences `indices` into one batch.

    Args:
        encoded: the sequences.
        indices: int [batch].
        pad_id: the token that fills the ends.
        task: decides the labels.
        mask_rng: masked-lm only: draws which tokens are masked, anew at every call.
        mask_id: masked-lm only: the mask token.
        vocab_size: masked-lm only: the number of tokens that a random one is drawn from.
        special_ids: masked-lm only: tokens that are never masked and never drawn.
        masking: masked-lm only: how many tokens are masked, and which.
        weights: masked-lm with smoothing only: see `token_weights`.
        multiple_of: the width is rounded up to this, never past `encoded.max_length`, which
            models may not have positions for.

    Returns:
        int64 arrays [batch, width]: `input_ids`, `attention_mask`, `token_type_ids` for pairs, and
        `labels`: [batch] int64 class ids or float32 numbers; for language models [batch, width]
        with -100 where nothing is to be predicted.

    Raises:
        ValueError: masked-lm without `mask_rng`, `mask_id` or `vocab_size`.
    """
    starts = encoded.offsets[indices]
    lengths = encoded.offsets[np.asarray(indices) + 1] - starts
    longest = int(lengths.max())
    width = max(longest, min(-(-longest // multiple_of) * multiple_of, encoded.max_length))
    columns = np.arange(width)
    real = columns < lengths[:, None]  # [batch, width]
    places = (starts[:, None] + columns)[real]  # [tokens of the batch]
    input_ids = np.full(real.shape, pad_id, dtype=np.int64)
    input_ids[real] = encoded.ids[places]
    batch = {"input_ids": input_ids, "attention_mask": real.astype(np.int64)}
    if encoded.types is not None:
        batch["token_type_ids"] = np.zeros(real.shape, dtype=np.int64)
        batch["token_type_ids"][real] = encoded.types[places]
    if task.name == "causal-lm":
        batch["labels"] = np.where(real, input_ids, IGNORED)
    elif task.name == "masked-lm":
        if mask_rng is None or mask_id is None or vocab_size is None:
            raise ValueError("masked-lm needs mask_rng, mask_id and vocab_size")
        batch["input_ids"], batch["labels"] = mask_tokens(
            input_ids,
            real,
            mask_rng,
            mask_id=mask_id,
            vocab_size=vocab_size,
            special_ids=special_ids,
            masking=masking,
            weights=weights,
        )
    elif encoded.labels is not None:
        batch["labels"] = encoded.labels[indices]
    return batch


def mask_tokens(
    input_ids: np.ndarray,
    real: np.ndarray,
    draw: np.random.Generator,
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    masking: Masking = PLAIN,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens; 80 % of them become the mask, 10 % another token, 10 % stay.

    Args:
        input_ids: int64 [batch, width].
        real: bool [batch, width], False at padding.
        draw: the source of chance.
        mask_id: the mask token.
        vocab_size: how many tokens there are.
        special_ids: tokens that are never chosen, nor drawn as the other token.
        masking: how many tokens are chosen, and which.
        weights: with smoothing only: see `token_weights`.

    Returns:
        The masked ids and the labels, both int64 [batch, width]; labels are -100 at tokens that
        were not chosen.
    """
    if masking.probability == 0:
        return input_ids, np.full_like(input_ids, IGNORED)
    maskable = real & ~np.isin(input_ids, list(special_ids))
    if masking.smoothing == 0:
        chosen = maskable & (draw.random(input_ids.shape) < masking.probability)
    else:
        share = math.ceil(masking.probability * np.count_nonzero(real))
        chosen = _weighted(weights[input_ids] * maskable, share, draw)
    if not chosen.any() and maskable.any():  # a loss over nothing is not a number
        chosen.flat[draw.choice(np.flatnonzero(maskable))] = True
    lot = draw.random(input_ids.shape)
    special = sorted({i for i in special_ids if 0 <= i < vocab_size})
    other = draw.integers(vocab_size - len(special), size=input_ids.shape)
    for token in special:
        # Numbers from a special token on move up by one, past it: the others stay equally likely.
        other += other >= token
    masked = np.where(chosen & (lot < MASK_TOKEN_SHARE), mask_id, input_ids)
    swap = chosen & (lot >= MASK_TOKEN_SHARE) & (lot < MASK_TOKEN_SHARE + RANDOM_TOKEN_SHARE)
    return np.where(swap, other, masked), np.where(chosen, input_ids, IGNORED)


def _weighted(weights: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Draw places one by one without putting back, each in proportion to its weight.

    Waiting times at rates `weights` come in just that order, so the shortest are the places drawn.

    Args:
        weights: float [batch, width]; places of weight 0 are never drawn.
        count: how many; all places with a weight if there are fewer.
        draw: the source of chance.

    Returns:
        bool [batch, width].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        waits = draw.exponential(size=weights.shape) / weights
    count = min(count, int(np.count_nonzero(weights)))
    chosen = np.zeros(weights.size, dtype=bool)
    chosen[np.argsort(waits, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(weights.shape)
