"""Words near a word by the cosine of their vectors, in a file or in a model's own embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded

# From a word and the ids of its pieces to the words near it, the nearest first.
Neighbours = Callable[[str, tuple[int, ...]], list[str]]
# Files of vectors begin with the frequent words; TinyBERT's authors read as many.
MOST_VECTORS = 100_000


def nearest(
    table: torch.Tensor, vector: torch.Tensor, count: int, banned: Sequence[int]
) -> list[int]:
    """The rows of a table with the largest cosine, the largest first.

    Args:
        table: [words, width], rows of length one.
        vector: [width].
        count: rows at most.
        banned: rows that are no answer.
    """
    scores = table @ (vector / vector.norm())  # [words]
    scores[list(banned)] = float("-inf")
    return scores.topk(min(count, len(table) - len(banned))).indices.tolist()


def neighbours_in_file(path: Path, count: int) -> Neighbours:
    """The nearest words by the vectors of a file; none for a word that it does not hold."""
    import torch
    from torch.nn.functional import normalize

    from compressor.data.word_vectors import read_word_vectors

    words, vectors = read_word_vectors(path, MOST_VECTORS)
    table = normalize(torch.from_numpy(vectors), dim=-1)  # [words, width]
    rows = {word: row for row, word in reversed(list(enumerate(words)))}

    def near(word: str, pieces: tuple[int, ...]) -> list[str]:
        row = rows.get(word, rows.get(word.casefold()))
        return [] if row is None else [words[i] for i in nearest(table, table[row], count, [row])]

    return near


def neighbours_in_model(loaded: Loaded, spelt: Sequence[str], count: int) -> Neighbours:
    """The nearest whole words by the model's input embeddings, of a word as its pieces' mean."""
    import torch
    from torch.nn.functional import normalize

    weights = loaded.model.get_input_embeddings().weight.detach().float().cpu()
    ids = [number for number, word in enumerate(spelt) if word.isalpha()]
    table = normalize(weights[torch.tensor(ids)], dim=-1)  # [words, width]
    rows = {number: row for row, number in enumerate(ids)}

    def near(word: str, pieces: tuple[int, ...]) -> list[str]:
        own = sorted({rows[piece] for piece in pieces if piece in rows})
        mean = weights[list(pieces)].mean(dim=0)
        return [spelt[ids[row]] for row in nearest(table, mean, count, own)]

    return near
