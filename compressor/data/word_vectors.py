"""Word vectors in the text format of GloVe: on each line a word, then its numbers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from compressor.data.faults import excerpt
from compressor.data.readers import open_binary
from compressor.errors import InputError


def read_word_vectors(path: Path, limit: int) -> tuple[list[str], np.ndarray]:
    """The first words of a file, which such files sort by frequency, and their vectors.

    Args:
        path: the file.
        limit: the most words to read.

    Returns:
        The words, and float32 [words, width].

    Raises:
        InputError: a line that is none of a word and numbers, as many as on the first line.
        MachineError: the file may not be read.
    """
    words: list[str] = []
    vectors: list[np.ndarray] = []
    width = 0
    with open_binary(path) as file:
        for number, raw in enumerate(islice(file, limit), start=1):
            # From the right, because some words of the largest GloVe files hold blanks.
            parts = raw.decode("utf-8", errors="replace").rstrip().rsplit(" ", width or -1)
            width = width or len(parts) - 1
            try:
                vector = np.array(parts[1:], dtype=np.float32)
            except ValueError:
                vector = np.empty(0, np.float32)
            if not width or len(vector) != width or not np.isfinite(vector).all():
                numbers = f"{width} numbers" if width else "numbers"
                raise InputError(
                    f"expected a word and {numbers}: {excerpt(' '.join(parts))}",
                    hint="--word-vectors takes the text format of GloVe",
                    where=f"{path}:{number}",
                )
            words.append(parts[0])
            vectors.append(vector)
    if not words:
        raise InputError("no word vectors", hint="is the file empty?", where=str(path))
    return words, np.stack(vectors)
