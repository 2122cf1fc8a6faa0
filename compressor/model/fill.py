"""Which tokens a masked language model expects at single positions of many sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from compressor.model.load import Loaded
from compressor.model.output_rows import picking

if TYPE_CHECKING:
    import numpy as np
    import torch

# Tokens of a batch, padding included. Larger ones are no faster on a CPU.
BATCH_TOKENS = 4096
# How the kinds of tokenizer mark that a token continues a word, or that it begins one.
CONTINUES, BEGINS = "##", ("Ġ", "▁")


def fill_masks(
    loaded: Loaded,
    encoded: Any,
    asked: Sequence[tuple[int, int]],
    count: int,
) -> np.ndarray:
    """The likeliest tokens where one position of a sequence is masked.

    Each pair of `asked` is a sequence of its own to the model. They run in batches of like length,
    and the head answers at the masked position only.

    Args:
        loaded: a masked language model.
        encoded: what the tokenizer made of the texts, without padding.
        asked: (text, position) pairs.
        count: how many tokens to name.

    Returns:
        Token ids, int64 [asked, count], the likeliest first; fewer columns from a vocabulary that
        is smaller.
    """
    import numpy as np

    sequences = [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]
    arrays = {"input_ids": np.concatenate(sequences)}
    if getattr(loaded.model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in encoded:
        types = chain.from_iterable(encoded["token_type_ids"])
        arrays["token_type_ids"] = np.fromiter(types, dtype=np.int64)
    lengths = np.array([len(ids) for ids in sequences])
    starts = np.cumsum(lengths) - lengths
    owners, places = np.array(asked, dtype=np.int64).reshape(-1, 2).T
    columns = min(count, loaded.model.get_input_embeddings().weight.shape[0])
    found = np.empty((len(owners), columns), dtype=np.int64)
    for batch in like_batches(lengths[owners], BATCH_TOKENS):
        inputs = padded(arrays, starts[owners[batch]], lengths[owners[batch]], loaded)
        inputs["input_ids"][np.arange(len(batch)), places[batch]] = loaded.tokenizer.mask_token_id
        found[batch] = _likeliest(loaded.model, inputs, places[batch], columns)
    return found


def like_batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Indices of sequences in batches of like length, the longest first.

    Args:
        lengths: tokens of each sequence, [sequences].
        tokens: of a batch at most, padding included; a longer sequence stands alone.
    """
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def padded(
    arrays: dict[str, np.ndarray], starts: np.ndarray, lengths: np.ndarray, loaded: Loaded
) -> dict[str, np.ndarray]:
    """Sequences out of flat arrays, padded to the longest, with the attention mask.

    Args:
        arrays: int64 [tokens] each: `input_ids`, perhaps `token_type_ids`.
        starts: where each sequence begins, [batch].
        lengths: its tokens, [batch].
        loaded: gives the padding token.

    Returns:
        int64 [batch, length] each.
    """
    import numpy as np

    steps = np.arange(lengths.max())
    real = steps < lengths[:, None]  # [batch, length]
    source = np.where(real, starts[:, None] + steps, 0)
    fill = {"input_ids": loaded.tokenizer.pad_token_id or 0}
    made = {name: np.where(real, flat[source], fill.get(name, 0)) for name, flat in arrays.items()}
    return {**made, "attention_mask": real.astype(np.int64)}


def _likeliest(
    model: torch.nn.Module, inputs: dict[str, np.ndarray], places: np.ndarray, count: int
) -> np.ndarray:
    import torch

    device = next(model.parameters()).device
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
        logits = logits_at(model, tensors, torch.from_numpy(places).to(device))
        return logits.topk(count).indices.cpu().numpy()


def logits_at(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], places: torch.Tensor
) -> torch.Tensor:
    """A language model's logits at one position of each sequence, [batch, vocabulary].

    A vocabulary of tens of thousands makes the last matrix dear; where it is a module of its own,
    it sees that position alone.

    Args:
        model: with a head that gives logits [batch, length, vocabulary].
        inputs: of the forward pass, [batch, length].
        places: the positions, [batch].
    """
    import torch

    every = torch.arange(len(places), device=places.device)
    with picking(model, lambda hidden: hidden[every, places].unsqueeze(1)):
        logits = model(**inputs).logits
    return logits[:, 0] if logits.shape[1] == 1 else logits[every, places]


def whole_words(loaded: Loaded) -> list[str]:
    """What each token id spells as a word of its own.

    Returns:
        A string for each id of the vocabulary; "" for special tokens and those that continue a
        word.
    """
    tokenizer = loaded.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marks = {mark: sum(token.startswith(mark) for token in tokens) for mark in (CONTINUES, *BEGINS)}
    mark = max(marks, key=lambda name: marks[name])
    special = set(tokenizer.all_special_ids)
    words = []
    for number, token in enumerate(tokens):
        continues = token.startswith(mark) == (mark == CONTINUES)
        text = "" if continues else token if mark == CONTINUES else _spelt(tokenizer, token)
        words.append("" if number in special else text)
    rows = loaded.model.get_input_embeddings().weight.shape[0]  # tables are padded at times
    return [*words, *[""] * (rows - len(words))]


def _spelt(tokenizer: Any, token: str) -> str:
    return tokenizer.convert_tokens_to_string([token]).strip()
