"""Which rows are the same tokens or image, so that what depends on them alone is computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressor.data.encode import Encoded
from compressor.data.pixels import Pixels

CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Distinct:
    """The rows of a split without repetitions.

    Attributes:
        rows: int64 [distinct], the first row of each kind, the longest first.
        places: int64 [rows], where in `rows` each row's kind stands.
        fingerprint: `sha256:<hex>` of all rows' tokens, or images, in their order.
    """

    rows: np.ndarray
    places: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.rows)


def distinct(encodings: Sequence[Encoded | Pixels]) -> Distinct:
    """Find the rows that differ in any of several encodings of the same rows.

    Args:
        encodings: the rows by one tokenizer, or image format, or by several, as many in each.
    """
    each = [one.keys() if isinstance(one, Pixels) else _keys(one) for one in encodings]
    keys = np.concatenate(each, axis=1)
    kinds, first, kind_of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    # Ties by the row's number: the order depends on the tokens alone.
    order = np.lexsort((first, -encodings[0].lengths[first]))
    place_of = np.empty(len(kinds), dtype=np.int64)
    place_of[order] = np.arange(len(kinds))
    return Distinct(
        rows=first[order].astype(np.int64),
        places=place_of[kind_of.reshape(-1)],
        fingerprint=f"sha256:{hashlib.sha256(keys.tobytes()).hexdigest()}",
    )


def _keys(encoded: Encoded) -> np.ndarray:
    """Two hashes of each row's ids and types, uint64 [rows, 2].

    Sums of ids times fixed random numbers, one for each position: two rows that differ share both
    sums with a chance below 2^-90.
    """
    draw = np.random.default_rng(0)
    longest = int(encoded.lengths.max())
    factors = draw.integers(2**64, size=(longest, 2, 2), dtype=np.uint64)  # of ids, of types
    keys = np.empty((len(encoded), 2), dtype=np.uint64)
    for start in range(0, len(encoded), CHUNK_ROWS):
        offsets = encoded.offsets[start : start + CHUNK_ROWS + 1]
        tokens = slice(offsets[0], offsets[-1])
        starts = (offsets[:-1] - offsets[0]).astype(np.int64)
        positions = np.arange(offsets[-1] - offsets[0]) - np.repeat(starts, np.diff(offsets))
        # One is added so that a row and the same row with token 0 at its end differ.
        terms = (encoded.ids[tokens].astype(np.uint64) + 1)[:, None] * factors[positions, 0]
        if encoded.types is not None:
            terms += encoded.types[tokens].astype(np.uint64)[:, None] * factors[positions, 1]
        keys[start : start + CHUNK_ROWS] = np.add.reduceat(terms, starts, axis=0)  # [rows, 2]
    return keys
