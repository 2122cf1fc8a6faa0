"""The words that a corpus does not use leave tokenizer and embeddings; nothing else changes.

A. Abdaoui, C. Pradel, G. Sigel: Load What You Need: Smaller Versions of Multilingual BERT, 2020,
arXiv 2010.05609. With f(w) how often the token w comes out when the corpus C is tokenised, and S
the special and added tokens, the vocabulary V becomes

    V' = S + {w in V : f(w) >= min_count} + what these need    E' = E[V']

in the old order. The paper chooses by the share of a language's sentences in which a token
stands; here it is a count, as in vocabulary trimming (A. Ushio, Y. Zhou, J. Camacho-Collados,
2023, arXiv 2305.15020). Ours: every single character (byte) stays, and for BPE the tokens and
merges by which a kept token comes about, so that other texts can still be written. Then with
`min_count` 1 each text of the corpus is cut into the same pieces, which is seen to, and the model
gives the same outputs. All splits of the data are read, whole rows, however long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.data.readers import open_binary
from compressor.errors import InputError
from compressor.methods.contract import Rows
from compressor.methods.option import option
from compressor.model.pieces import (
    cut,
    first_cut_otherwise,
    ids_of,
    needed_ids,
    read_tokenizer,
    rebuilt,
    without_pieces,
)
from compressor.model.vocabulary import fixed_ids, keep_words, word_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from compressor.model.load import Loaded

VERBS = ("prune",)


@dataclass(frozen=True)
class Options:
    """Which words stay."""

    min_count: int = option(1, "a word that the corpus uses less often goes", low=1)
    keep_words: str = option(
        "", "text file, a word or phrase a line, whose pieces stay as well", file=True
    )


def counts_of(tokenizer: PreTrainedTokenizerBase, texts: Iterable[list[str]]) -> Counter[int]:
    """How often each token id comes out of `texts`, which come in chunks."""
    counts: Counter[int] = Counter()
    for chunk in texts:
        for ids in cut(tokenizer, chunk):
            counts.update(ids)
    return counts


def phrases_in(file: str) -> list[str]:
    """The lines of a text file that hold anything, each at the start of a text and inside one.

    Raises:
        InputError: the file is not UTF-8 text, or is empty.
        MachineError: it may not be read.
    """
    with open_binary(Path(file)) as handle:
        raw = handle.read()
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError("expected UTF-8 text, a word a line", where=file) from None
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise InputError("no words in the file", hint="a word or phrase a line", where=file)
    # Some tokenizers tell a word after a blank from the same word at the beginning.
    return [spelling for word in words for spelling in (word, f" {word}")]


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return True


def apply(loaded: Loaded, rows: Rows, options: Options) -> dict[str, Any]:
    """Trim the model in place and give `loaded` the smaller tokenizer.

    Returns:
        facts: words and embedding parameters (output layer included) before and after.

    Raises:
        InputError: a tokenizer or a family that cannot be trimmed, or a text of the corpus that
            would be cut into other pieces.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    content = read_tokenizer(tokenizer)
    counts = counts_of(tokenizer, rows.texts())
    used = {token for token, count in counts.items() if count >= options.min_count}
    if options.keep_words:
        used |= counts_of(tokenizer, [phrases_in(options.keep_words)]).keys()
    kept = sorted(needed_ids(content, used | fixed_ids(model)))
    words, before = model.get_input_embeddings().num_embeddings, _values(model)
    if kept[-1] >= words:
        raise InputError(
            f"the tokenizer numbers its tokens up to {max(ids_of(content).values()):,}, and the "
            f"model has embeddings of {words:,}"
        )
    loaded.tokenizer = rebuilt(tokenizer, without_pieces(content, kept))
    if options.min_count == 1:
        _refuse_other_pieces(first_cut_otherwise(tokenizer, loaded.tokenizer, kept, rows.texts()))
    keep_words(model, kept)
    after = _values(model)
    stored = loaded.checkpoint.tensors.values()
    width = sum(info.nbytes for info in stored) / sum(info.numel for info in stored)
    console.note(
        f"{len(kept):,} of {words:,} words stay; {(before - after) * width / 1e6:,.1f} MB of "
        "embeddings go"
    )
    return {
        "words_before": words,
        "words_after": len(kept),
        "embedding_parameters_before": before,
        "embedding_parameters_after": after,
    }


def _values(model: Any) -> int:
    return sum(parameter.numel() for parameter in word_parameters(model))


def _refuse_other_pieces(text: str | None) -> None:
    if text is not None:
        raise InputError(
            f"without the unused words a text would be cut into other pieces: {text[:60]!r}",
            hint="its tokenizer has words whose letters it lacks; leave that text out, or let "
            "--keep-words FILE name the beginnings of its words",
        )
