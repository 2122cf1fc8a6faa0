"""Merges replayed by hand, what a tokenizer cannot do without, and ids that follow."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

import small_tokenizers
import tiny
from compressor.errors import InputError
from compressor.model.pieces import (
    cut,
    derivation,
    first_cut_otherwise,
    ids_of,
    needed_ids,
    read_tokenizer,
    rebuilt,
    without_pieces,
)


def content_of(core) -> dict:
    return json.loads(core.to_str())


def trimmed(core, used: set[str]):
    """The core tokenizer without what `used` does not need."""
    content = content_of(core)
    ids = ids_of(content)
    kept = sorted(needed_ids(content, {ids[token] for token in used}))
    return Tokenizer.from_str(json.dumps(without_pieces(content, kept)))


@pytest.mark.parametrize(
    ("token", "merges", "expected"),
    [
        ("low", "l o,lo w", "l o,lo w"),
        ("lower", "l o,lo w,e r,low er", "l o,lo w,e r,low er"),
        # The rank decides the order, not the place in the word.
        ("lower", "e r,l o,lo w,low er", "e r,l o,lo w,low er"),
        # Two ways lead to it, and the lower rank takes one of them.
        ("abc", "b c,a b,ab c,a bc", "b c,a bc"),
        ("aaaa", "a a,aa aa", "a a,a a,aa aa"),
        # "we" is merged first, and no merge makes "lower" from what is left.
        ("lower", "w e,l o,lo w,e r,low er", ""),
        ("x", "l o", ""),
    ],
)
def test_merges_replayed_by_hand(token, merges, expected):
    listed = [tuple(pair.split()) for pair in merges.split(",")]
    ranks = {pair: rank for rank, pair in enumerate(listed)}
    assert derivation(token, ranks) == [tuple(pair.split()) for pair in expected.split(",") if pair]


def test_merges_with_marks_inside_and_at_the_end_of_words():
    ranks = {("l", "o"): 0, ("lo", "w</w>"): 1}
    assert derivation("low</w>", ranks, suffix="</w>") == [("l", "o"), ("lo", "w</w>")]
    ranks = {("##i", "##n"): 0, ("##in", "##g"): 1, ("s", "##ing"): 2}
    assert derivation("##ing", ranks, prefix="##") == [("##i", "##n"), ("##in", "##g")]
    assert derivation("sing", ranks, prefix="##") == [*list(ranks)[:2], ("s", "##ing")]


def bpe(merges: str, **settings):
    pairs = [tuple(pair.split()) for pair in merges.split(",")]
    letters = sorted({letter for pair in pairs for letter in "".join(pair)})
    tokens = dict.fromkeys([*letters, *("".join(pair) for pair in pairs)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocabulary, pairs, **settings))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return core


def test_bpe_keeps_what_a_token_passes_through_and_drops_the_rest():
    small = trimmed(bpe("l o,lo w,e r,low er,n e,ne w,new er"), {"lower"})
    assert set(small.get_vocab()) == {*"lowern", "lo", "low", "er", "lower"}
    merges = [tuple(pair) for pair in content_of(small)["model"]["merges"]]
    assert merges == [("l", "o"), ("lo", "w"), ("e", "r"), ("low", "er")]
    assert small.encode("lower newer").tokens == ["lower", "n", "e", "w", "er"]


def test_a_token_that_is_looked_up_whole_needs_no_merge():
    core = bpe("w e,l o,lo w,e r,low er", ignore_merges=True)
    small = trimmed(core, {"lower"})
    assert core.encode("lower").tokens == small.encode("lower").tokens == ["lower"]
    assert set(small.get_vocab()) == {*"lower", "lower"}


def test_unigram_keeps_the_lowest_score_because_the_unknown_one_hangs_on_it():
    # No piece is "x". "xy z" scores -20 - 13; "?" for x and "yz" scores (lowest - 10) - 1, which
    # is -61 with "far" and would be -31 without it.
    pieces = [("<unk>", 0.0), ("xy", -20.0), ("z", -13.0), ("yz", -1.0), ("far", -50.0)]
    core = Tokenizer(models.Unigram([*pieces, ("no", -30.0)], unk_id=0))
    small = trimmed(core, {"xy", "yz"})
    assert set(small.get_vocab()) == {"<unk>", "xy", "z", "yz", "far"}
    assert core.encode("xyz").tokens == small.encode("xyz").tokens == ["xy", "z"]
    without = Tokenizer(models.Unigram(pieces[:-1], unk_id=0))
    assert without.encode("xyz").tokens == ["x", "yz"]


def test_bytes_written_out_stay():
    pieces = [("<unk>", 0.0), ("word", -1.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    small = trimmed(Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True)), set())
    assert small.get_vocab_size() == 257
    assert "<unk>" not in small.encode("é").tokens


def test_the_unknown_piece_follows_its_number():
    pieces = [("gone", -1.0), ("also gone", -2.0), ("<unk>", 0.0), ("a", -3.0)]
    small = trimmed(Tokenizer(models.Unigram(pieces, unk_id=2)), set())
    assert content_of(small)["model"]["unk_id"] == 0
    assert small.encode("a?").ids == [1, 0]


TEMPLATES = {
    "template": lambda sep, cls: processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    ),
    "bert": lambda sep, cls: processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls)),
    "roberta": lambda sep, cls: processors.RobertaProcessing(("[SEP]", sep), ("[CLS]", cls)),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a sequence"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_and_padding_follow(name, inside):
    names = ["gone", "word", "[SEP]", "too", "a", "[CLS]", "[PAD]"]
    core = Tokenizer(models.WordPiece({name: n for n, name in enumerate(names)}, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = TEMPLATES[name](2, 5)
    last = [processors.ByteLevel(), template]
    core.post_processor = processors.Sequence(last) if inside else template
    core.enable_padding(pad_id=6, pad_token="[PAD]", length=8)
    small = trimmed(core, {"word"})
    assert small.get_vocab_size() == 5
    before, after = (one.encode("word a", "a") for one in (core, small))
    assert before.tokens == after.tokens
    assert after.tokens[-1] == "[PAD]"
    assert [small.token_to_id(token) for token in after.tokens] == after.ids


KINDS = {
    "wordpiece": tiny.tokenizer,
    "bpe": small_tokenizers.byte_bpe,
    "unigram": small_tokenizers.unigram,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_its_pieces_its_settings_and_a_way_to_write_anything(kind):
    tokenizer = KINDS[kind]()
    tokenizer.add_tokens(["<brand new>", AddedToken("second", lstrip=True)])
    tokenizer.chat_template = "{{ messages }}"
    content = read_tokenizer(tokenizer)
    texts = [*small_tokenizers.corpus(), "a second <brand new> film"]
    used = {token for ids in cut(tokenizer, texts) for token in ids}
    kept = sorted(needed_ids(content, used))
    small = rebuilt(tokenizer, without_pieces(content, kept))

    assert 0 < len(small) == len(kept) < len(tokenizer)
    assert [small.tokenize(text) for text in texts] == [tokenizer.tokenize(text) for text in texts]
    assert first_cut_otherwise(tokenizer, small, kept, [texts]) is None
    everything = [" ".join(tiny.WORDS)]  # most of which the few texts do not use
    assert first_cut_otherwise(tokenizer, small, kept, [everything]) == everything[0]
    assert small.special_tokens_map == tokenizer.special_tokens_map
    assert small.model_max_length == tokenizer.model_max_length
    assert small.chat_template == tokenizer.chat_template
    assert {str(token) for token in tokenizer.added_tokens_decoder.values()} == {
        str(token) for token in small.added_tokens_decoder.values()
    }
    order = [token for token, _ in sorted(small.get_vocab().items(), key=lambda pair: pair[1])]
    assert order == tokenizer.convert_ids_to_tokens(kept)
    for text in small_tokenizers.OTHER:
        ids = small(text)["input_ids"]
        assert max(ids) < len(small)
        decoded = small.decode(ids, skip_special_tokens=True)
        assert decoded == text if kind == "bpe" else decoded


@pytest.mark.parametrize("kind", KINDS)
def test_all_pieces_kept_change_nothing(kind):
    content = read_tokenizer(KINDS[kind]())
    assert without_pieces(content, range(len(ids_of(content)))) == content


def test_what_cannot_be_trimmed_is_refused_by_name():
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        read_tokenizer(None)
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(InputError, match="WordLevel tokenizer; expected WordPiece, BPE, Unigram"):
        read_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words))
    with pytest.raises(InputError, match="at random"):
        read_tokenizer(PreTrainedTokenizerFast(tokenizer_object=bpe("l o", dropout=0.5)))


def test_a_tokenizer_that_comes_back_with_other_numbers_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<x>"])
    content = read_tokenizer(tokenizer)
    content["added_tokens"][-1]["id"] += 5
    with pytest.raises(InputError, match="'<x>'"):
        rebuilt(tokenizer, content)
