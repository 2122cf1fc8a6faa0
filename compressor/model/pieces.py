"""A tokenizer.json with fewer pieces: which ones it cannot do without, and the rest taken out.

Three kinds of model are understood. Each cuts a text into the same pieces as before, as long as
every piece in use stays:

- WordPiece takes the longest piece that fits, and a longer one was not there before either;
- BPE applies the merge of lowest rank, so a piece needs every merge that made it, and the pieces
  those passed through;
- Unigram takes the best-scored path, and the best path of before is still there. Its unknown
  score lies below the lowest one, so the piece that has the lowest stays.

Single characters (bytes, where the characters stand for bytes) always stay: any text that could
be written before still can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("WordPiece", "BPE", "Unigram")
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")

Merge = tuple[str, str]


def read_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """What tokenizer.json holds for a fast tokenizer.

    Raises:
        InputError: there is no such file for it, or its model is none of `KINDS`.
    """
    if not getattr(tokenizer, "is_fast", False):
        found = "a model of images" if tokenizer is None else f"a {type(tokenizer).__name__}"
        raise InputError(
            f"{found} has no tokenizer.json to take words out of",
            hint="" if tokenizer is None else "save the checkpoint with a fast tokenizer",
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = content["model"]["type"]
    if kind not in KINDS:
        raise InputError(
            f"words cannot be taken out of a {kind} tokenizer; expected {', '.join(KINDS)}"
        )
    if content["model"].get("dropout"):
        raise InputError("the tokenizer drops merges at random, so no piece is known to be unused")
    return content


def ids_of(content: Mapping[str, Any]) -> dict[str, int]:
    """The id of every token of a tokenizer.json, added ones included."""
    vocabulary = content["model"]["vocab"]
    if content["model"]["type"] == "Unigram":
        ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    else:
        ids = dict(vocabulary)
    return ids | {token["content"]: token["id"] for token in content["added_tokens"]}


def needed_ids(content: Mapping[str, Any], used: Collection[int]) -> set[int]:
    """The ids of all tokens that must stay for the tokens `used` to come out as they did.

    Args:
        content: of a tokenizer.json.
        used: ids that must stay.

    Returns:
        `used`, added and special tokens, single characters, and what the kind of model asks for.
    """
    model, ids = content["model"], ids_of(content)
    needed = set(used)
    renumbered(content, lambda token: needed.add(token) or token)
    prefix, suffix = (model.get(name) or "" for name in _AFFIXES)
    for token, number in ids.items():
        inner = token.removeprefix(prefix).removesuffix(suffix)
        if len(token) == 1 or len(inner) == 1 or _BYTE.fullmatch(token):
            needed.add(number)
    if model.get("unk_token") in ids:
        needed.add(ids[model["unk_token"]])
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        needed.add(scores.index(min(scores)))
    if model["type"] == "BPE":
        ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        for token in [token for token, number in ids.items() if number in needed]:
            for pair in derivation(token, ranks, prefix, suffix):
                made = joined(pair, prefix)
                needed.update(ids[part] for part in (*pair, made))
    return needed


def derivation(
    token: str, ranks: Mapping[Merge, int], prefix: str = "", suffix: str = ""
) -> list[Merge]:
    """The merges that make a token of BPE from its characters, in order.

    The pair of lowest rank is merged first, the leftmost of several, as in any text in which the
    token comes out: merges across its borders did not happen there.

    Args:
        token: as the vocabulary writes it.
        ranks: every merge's place in the list.
        prefix: what marks symbols inside a word ("##"), if anything does.
        suffix: what marks the last symbol of a word ("</w>"), if anything does.

    Returns:
        Empty where the merges do not make the token: it was added, or is looked up whole.
    """
    symbols = characters_of(token, prefix, suffix)
    done: list[Merge] = []
    while len(symbols) > 1:
        pairs = list(pairwise(symbols))
        place = min(range(len(pairs)), key=lambda at: ranks.get(pairs[at], len(ranks)))
        if pairs[place] not in ranks:
            return []
        done.append(pairs[place])
        symbols[place : place + 2] = [joined(pairs[place], prefix)]
    return done


def characters_of(token: str, prefix: str, suffix: str) -> list[str]:
    """The symbols from which BPE starts to make a token."""
    inside, last = bool(prefix) and token.startswith(prefix), bool(suffix)
    body = token.removeprefix(prefix) if inside else token
    last = last and body.endswith(suffix) and body != suffix
    body = body.removesuffix(suffix) if last else body
    symbols = [f"{prefix if inside or place else ''}{letter}" for place, letter in enumerate(body)]
    if last:
        symbols[-1] += suffix
    return symbols


def joined(pair: Merge, prefix: str) -> str:
    """The token that a merge makes."""
    return pair[0] + pair[1][len(prefix) :]


def renumbered(content: Mapping[str, Any], new: Callable[[int], int]) -> dict[str, Any]:
    """A tokenizer.json whose added tokens, templates and padding hold other ids.

    Args:
        content: of a tokenizer.json; left as it is.
        new: the new id of an old one.
    """
    model = dict(content["model"])
    if model.get("unk_id") is not None:
        model["unk_id"] = new(model["unk_id"])
    changed = {**content, "model": model}
    changed["added_tokens"] = [
        {**token, "id": new(token["id"])} for token in content["added_tokens"]
    ]
    if content["padding"] is not None:
        changed["padding"] = {**content["padding"], "pad_id": new(content["padding"]["pad_id"])}
    if content["post_processor"] is not None:
        changed["post_processor"] = _renumbered_template(content["post_processor"], new)
    return changed


def _renumbered_template(template: dict[str, Any], new: Callable[[int], int]) -> dict[str, Any]:
    changed = dict(template)
    if template["type"] == "Sequence":
        inner = template["processors"]
        changed["processors"] = [_renumbered_template(part, new) for part in inner]
    if template["type"] == "TemplateProcessing":
        changed["special_tokens"] = {
            name: {**token, "ids": [new(number) for number in token["ids"]]}
            for name, token in template["special_tokens"].items()
        }
    if template["type"] in ("BertProcessing", "RobertaProcessing"):
        for name in ("sep", "cls"):
            token, number = template[name]
            changed[name] = [token, new(number)]
    return changed


def without_pieces(content: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """A tokenizer.json with the tokens `kept` only, numbered in the same order.

    Args:
        content: of a tokenizer.json.
        kept: ids, ascending, `needed_ids` among them; some may be no token's.
    """
    new = {old: number for number, old in enumerate(kept)}
    changed = renumbered(content, new.__getitem__)
    model = changed["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in new]
        return changed
    left = sorted((new[old], token) for token, old in model["vocab"].items() if old in new)
    model["vocab"] = {token: number for number, token in left}
    if model["type"] == "BPE":
        prefix = model.get(_AFFIXES[0]) or ""
        model["merges"] = [
            [*pair]
            for pair in model["merges"]
            if all(part in model["vocab"] for part in (*pair, joined(pair, prefix)))
        ]
    return changed


def rebuilt(
    tokenizer: PreTrainedTokenizerBase, content: Mapping[str, Any]
) -> PreTrainedTokenizerBase:
    """The tokenizer as a reload from disk makes it, with another tokenizer.json.

    Raises:
        InputError: the reload numbers the tokens otherwise than `content` does.
    """
    with TemporaryDirectory(prefix="compressor-") as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        made = type(tokenizer).from_pretrained(folder, local_files_only=True)
    made.name_or_path = tokenizer.name_or_path
    found, expected = made.get_vocab(), ids_of(content)
    wrong = [token for token, number in expected.items() if found.get(token) != number]
    wrong += sorted(found.keys() - expected.keys())
    if wrong:
        raise InputError(
            f"a {type(tokenizer).__name__} does not come back from the disk with the numbers that "
            f"its tokens were given, such as {wrong[0]!r}",
            hint="its tokenizer.json leaves numbers out; save it again with a gapless vocabulary",
        )
    return made


def first_cut_otherwise(
    before: PreTrainedTokenizerBase,
    after: PreTrainedTokenizerBase,
    kept: Sequence[int],
    texts: Iterable[list[str]],
) -> str | None:
    """The first text that two tokenizers do not cut into the same pieces; None if there is none.

    Args:
        before: the tokenizer with all pieces.
        after: the one with fewer.
        kept: the ids of `before` in the order of those of `after`.
        texts: in chunks.
    """
    for chunk in texts:
        for text, old, new in zip(
            chunk, *(cut(one, chunk) for one in (before, after)), strict=True
        ):
            if old != [kept[number] for number in new]:
                return text
    return None


def cut(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The token ids of each text, whole and without what stands around a text."""
    return tokenizer(
        texts,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
