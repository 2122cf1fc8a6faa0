"""Which tokens of a sequence that is too long are kept."""

from __future__ import annotations

import numpy as np

from compressor.errors import UsageError


def cut_end(texts: np.ndarray, max_length: int) -> np.ndarray:
    """Positions of a sequence that are kept: special tokens, and the beginnings of its texts.

    Words go from the end of the longer of two texts, until both are of one length, then from both.

    Args:
        texts: int [length], the text of each token: 0 or 1, and -1 for special tokens.
        max_length: how many positions may be kept.

    Raises:
        UsageError: `max_length` leaves no room for a word.
    """
    room = _room(texts, max_length)
    first, second = np.flatnonzero(texts == 0), np.flatnonzero(texts == 1)
    short = min(len(first), len(second), room // 2)
    if len(first) <= len(second):
        first, second = first[:short], second[: room - short]
    else:
        first, second = first[: room - short], second[:short]
    return np.sort(np.concatenate([np.flatnonzero(texts < 0), first, second]))


def cut_up(texts: np.ndarray, max_length: int) -> list[np.ndarray]:
    """Positions of a long sequence as several, each with all the special tokens.

    Args:
        texts: int [length], 0 for the tokens of the text and -1 for special tokens.
        max_length: how many positions one piece may have.

    Raises:
        UsageError: `max_length` leaves no room for a word.
    """
    room = _room(texts, max_length)
    special, words = np.flatnonzero(texts < 0), np.flatnonzero(texts >= 0)
    return [
        np.sort(np.concatenate([special, words[start : start + room]]))
        for start in range(0, len(words), room)
    ]


def _room(texts: np.ndarray, max_length: int) -> int:
    special = int(np.count_nonzero(texts < 0))
    if max_length <= special:
        raise UsageError(
            f"{max_length} tokens leave no room beside {special} special tokens",
            hint=f"at least {special + 1}; 128 suits sentences",
            where="--max-length",
        )
    return max_length - special
