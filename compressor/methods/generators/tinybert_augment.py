"""TinyBERT's data augmentation: texts of a task with some words replaced by likely others.

X. Jiao, Y. Yin, L. Shang, X. Jiang, X. Chen, L. Li, F. Wang, Q. Liu: TinyBERT: Distilling BERT for
Natural Language Understanding, Findings of EMNLP 2020, arXiv 1909.10351, algorithm 1, with p_t the
probability of a replacement, N_a the copies of a text and K the candidates of a word:

    for each word x_i that is purely alphabetic and no stop word:
        one word piece:  C_i = the K likeliest tokens at x_i in "[CLS] masked [SEP] original [SEP]"
        several:         C_i = the K words whose vectors have the largest cosine with that of x_i
    N_a times: a copy of the text, each x_i replaced with probability p_t by a random word of C_i

Kept from the authors' code: the unmasked text as the second segment; candidates once per word and
not per copy; the K tokens first, then without those that continue a word (`##ing`), so that a word
may have fewer; the word itself, which the model sees in the second segment, stays among them, so
that p_t is an upper bound; a copy that is not new is left out and not tried again; the label is
copied.

Different: special tokens are no candidates. Words are replaced where they stand, and the rest of
the text keeps its case and its blanks. In pairs, up to N_a copies of each text stand beside the
original of the other; the authors' script overwrites its row, so that its second texts meet the
last copy of the first. The stop words are our own. Without `--word-vectors` (the authors take
GloVe), words of several pieces are compared in the model's own input embeddings: the mean of their
pieces with every alphabetic word that is one piece, but for those pieces themselves. That table
knows spelling more than meaning, so GloVe vectors are better where they are at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.data.rows import Example, Row
from compressor.data.stop_words import STOP_WORDS
from compressor.errors import InputError
from compressor.methods.contract import Work
from compressor.methods.option import option
from compressor.model.fill import fill_masks, whole_words
from compressor.model.load import longest_input
from compressor.model.neighbours import neighbours_in_file, neighbours_in_model

if TYPE_CHECKING:
    import numpy as np

    from compressor.model.load import Loaded

VERBS = ("generate",)
MODEL_TASK = "masked-lm"
# Rows, or characters, whose words are asked about together. Nothing but the place where a resumed
# run goes on depends on them.
BLOCK_ROWS, BLOCK_CHARACTERS = 128, 20_000


@dataclass(frozen=True)
class Options:
    """How many copies, and how different."""

    p: float = option(
        0.4, "probability that a word is replaced", source="the paper", low=0.0, high=1.0
    )
    copies: int = option(20, "copies of a text, the same ones dropped", source="the paper", low=1)
    top_k: int = option(15, "candidates for a word at most", source="the paper", low=1)
    word_vectors: str = option(
        "",
        "GloVe text file for words of several pieces; the model's input embeddings if absent",
        file=True,
    )


class Word(NamedTuple):
    """A word that may be replaced: where it stands in its text, and by what."""

    start: int
    end: int
    candidates: list[str]


class Place(NamedTuple):
    """A word of a text before its candidates are known: characters, spelling, first piece."""

    start: int
    end: int
    word: str
    piece: int
    pieces: int


def generate(
    loaded: Loaded, rows: Iterable[Row], options: Options, work: Work
) -> Iterator[Example]:
    """The copies of every row, in order.

    Raises:
        InputError: a tokenizer without a mask or without offsets, broken word vectors.
    """
    import numpy as np

    search = Search(loaded, options)
    read = lru_cache(maxsize=8)(work.kept.__getitem__)
    known: dict[bytes, tuple[int, int]] = {}  # text -> its block and its place there
    number = 0
    for block, chunk in enumerate(_blocks(rows)):
        texts: list[str] = []
        for text in (text for row in chunk for text in row.texts):
            if _key(text) not in known:
                known[_key(text)] = (block, len(texts))
                texts.append(text)
        if block == len(work.kept):
            work.kept.append(search.words(texts))
        for row in chunk:
            found = (known[_key(text)] for text in row.texts)
            words = [[Word(*word) for word in read(at)[index]] for at, index in found]
            draw = np.random.default_rng((work.seed, number))
            yield from copies(row, words, options, draw)
            number += 1


def _blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    block: list[Row] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += sum(map(len, row.texts))
        if len(block) == BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def copies(
    row: Row, words: Sequence[Sequence[Word]], options: Options, draw: np.random.Generator
) -> Iterator[Example]:
    """New rows from one: the copies of each of its texts, beside the others as they are.

    Args:
        row: one text or two.
        words: of each text.
        options: how many, and how different.
        draw: seeded for this row.
    """
    for index, (text, replaceable) in enumerate(zip(row.texts, words, strict=True)):
        for made in variants(text, replaceable, options.p, options.copies, draw):
            yield Example((*row.texts[:index], made, *row.texts[index + 1 :]), row.label)


def variants(
    text: str, words: Sequence[Word], p: float, count: int, draw: np.random.Generator
) -> list[str]:
    """The different texts among `count` copies in which each word is replaced with probability p.

    Args:
        text: the original, which is none of them.
        words: in order, not overlapping.
        p: of a replacement.
        count: copies to draw.
        draw: where the numbers come from.
    """
    import numpy as np

    replaced = draw.random((count, len(words))) < p  # [copies, words]
    sizes = np.array([len(word.candidates) for word in words], dtype=np.int64)
    picked = (draw.random((count, len(words))) * sizes).astype(np.int64)
    choices = np.where(replaced & (sizes > 0), picked, -1).tolist()
    ends = [0, *(word.end for word in words)]
    between = [text[end : word.start] for end, word in zip(ends, words, strict=False)]
    own = [text[word.start : word.end] for word in words]
    seen = dict.fromkeys([text])
    for choice in choices:
        parts: list[str] = []
        for place, pick in enumerate(choice):
            parts += (between[place], own[place] if pick < 0 else words[place].candidates[pick])
        seen["".join([*parts, text[ends[-1] :]])] = None
    return list(seen)[1:]


def eligible(word: str) -> bool:
    """Whether a word may be replaced: letters only, and no stop word."""
    return word.isalpha() and word.casefold() not in STOP_WORDS


def places(text: str, encoding: Any) -> list[Place]:
    """The eligible words of a text, as its tokenizer tells words apart.

    Args:
        text: the original.
        encoding: of the pair (text, text), by a fast tokenizer.
    """
    found = []
    owners = zip(encoding.word_ids, encoding.sequence_ids, strict=True)
    for number in dict.fromkeys(number for number, sequence in owners if sequence == 0):
        start, end = encoding.word_to_chars(number, 0)
        word = text[start:end].lstrip()  # some tokenizers count the blank before it
        if eligible(word):
            piece, after = encoding.word_to_tokens(number, 0)
            found.append(Place(end - len(word), end, word, piece, after - piece))
    return found


class Search:
    """Candidates for the words of texts."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        tokenizer = loaded.tokenizer
        if not getattr(tokenizer, "is_fast", False) or tokenizer.mask_token_id is None:
            raise InputError(
                f"the tokenizer of {loaded.checkpoint.name} has no mask token, or is not a fast "
                "one, which knows where words begin",
                hint="use a masked language model with a tokenizer.json",
                where=str(loaded.checkpoint.path),
            )
        self.loaded, self.count = loaded, options.top_k
        self.spelt = whole_words(loaded)
        self.longest = longest_input(loaded)
        self.neighbours = lru_cache(maxsize=None)(
            neighbours_in_file(Path(options.word_vectors), self.count)
            if options.word_vectors
            else neighbours_in_model(loaded, self.spelt, self.count)
        )

    def words(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of each text that have candidates, with them."""
        if not texts:
            return []
        encoded = self.loaded.tokenizer(list(texts), list(texts), verbose=False)
        found = [places(text, encoded.encodings[i]) for i, text in enumerate(texts)]
        # A text that is too long twice loses words of the second, then the end of the first.
        for name in ("input_ids", "token_type_ids"):
            if name in encoded:
                encoded[name] = [values[: self.longest] for values in encoded[name]]
        asked = [
            (index, place.piece)
            for index, those in enumerate(found)
            for place in those
            if place.pieces == 1 and place.piece < self.longest
        ]
        filled = fill_masks(self.loaded, encoded, asked, self.count).tolist()
        likely = dict(zip(asked, filled, strict=True))
        made = []
        for index, those in enumerate(found):
            ids = encoded.encodings[index].ids
            words = []
            for place in those:
                if place.pieces == 1:
                    tokens = likely.get((index, place.piece), ())
                    others = [self.spelt[token] for token in tokens]
                else:
                    pieces = tuple(ids[place.piece : place.piece + place.pieces])
                    others = self.neighbours(place.word, pieces)
                candidates = spelt_as(place.word, others)
                if candidates:
                    words.append(Word(place.start, place.end, candidates))
            made.append(words)
        return made


def spelt_as(word: str, candidates: Iterable[str]) -> list[str]:
    """Candidates, each once and none empty; the word itself as the text spells it."""
    same = word.casefold()
    return list(dict.fromkeys(word if c.casefold() == same else c for c in candidates if c))
