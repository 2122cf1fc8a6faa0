"""TinyBERT's augmentation: which words, which candidates, which copies."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tiny
from compressor.data.rows import Example, Row
from compressor.errors import InputError
from compressor.methods.contract import Work
from compressor.methods.generators import tinybert_augment as method
from compressor.methods.generators.tinybert_augment import Options, Word, eligible, variants

SINGLE = [("A great film , not dull !", 1), ("the plot was boring", 0), ("i it was", 0)]
PAIR = ("great food", "slow service")


@pytest.fixture(scope="module")
def loaded():
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    checkpoint = SimpleNamespace(family="bert", name="mlm", path=Path("mlm"))
    return SimpleNamespace(model=model, tokenizer=tiny.tokenizer(), checkpoint=checkpoint)


def row(*texts, label=1):
    return Row(1, Path("train.jsonl"), texts, label)


def made(loaded, rows, kept=None, seed=0, **options):
    work = Work(seed, [] if kept is None else kept)
    return list(method.generate(loaded, rows, Options(**options), work))


def singles(times=1):
    return [row(text, label=label) for text, label in SINGLE * times]


@pytest.mark.parametrize("word", ["film", "Great", "émouvant", "x"])
def test_words_of_letters_may_be_replaced(word):
    assert eligible(word)


@pytest.mark.parametrize("word", ["the", "The", "not", "don", "t", "3d", "1999", ",", "co-op", ""])
def test_stop_words_and_what_is_not_only_letters_may_not(word):
    assert not eligible(word)


WORDS = [Word(2, 7, ["good", "fine"]), Word(8, 12, ["movie"])]


def draw(seed=0):
    return np.random.default_rng(seed)


def test_every_copy_at_p_1_replaces_every_word_and_nothing_else():
    found = variants("A great film , ok", WORDS, 1.0, 50, draw())
    assert sorted(found) == ["A fine movie , ok", "A good movie , ok"]


def test_no_copy_at_p_0_and_none_without_words():
    assert variants("A great film , ok", WORDS, 0.0, 50, draw()) == []
    assert variants("A great film , ok", [], 1.0, 50, draw()) == []
    assert variants("", [], 1.0, 50, draw()) == []


def test_only_new_copies_are_kept_up_to_the_count():
    found = variants("A great film , ok", WORDS, 0.5, 1000, draw())
    assert len(found) == len(set(found)) == 5  # 3 x 2 choices less the original
    assert "A great film , ok" not in found
    few = variants("A great film , ok", WORDS, 0.5, 3, draw())
    assert len(few) <= 3
    assert set(few) <= set(found)


def test_a_word_is_replaced_with_probability_p_by_any_candidate_alike():
    words = [Word(i, i + 1, ["a", "b", "c", "d"]) for i in range(400)]
    found = variants("x" * 400, words, 0.4, 20, draw())
    counts = {letter: sum(text.count(letter) for text in found) for letter in "abcdx"}
    assert counts["x"] / 8000 == pytest.approx(0.6, abs=0.02)
    for letter in "abcd":
        assert counts[letter] / 8000 == pytest.approx(0.1, abs=0.02)


def test_candidates_are_the_likeliest_tokens_beside_the_original(loaded):
    text = "A great film"
    (words,) = method.Search(loaded, Options()).words([text])
    inputs = loaded.tokenizer(text, text, return_tensors="pt")  # [CLS] a great film [SEP] ...
    inputs["input_ids"][0, 2] = loaded.tokenizer.mask_token_id
    with torch.inference_mode():
        top = loaded.model(**inputs).logits[0, 2].topk(15).indices.tolist()
    tokens = loaded.tokenizer.convert_ids_to_tokens(top)
    whole = [t for t in tokens if not t.startswith("##") and t not in tiny.SPECIALS]
    assert any(t.startswith("##") for t in tokens)  # some of the 15 were dropped, none came instead
    assert words[0] == Word(2, 7, whole)
    assert [text[word.start : word.end] for word in words] == ["great", "film"]


def test_pieces_and_special_tokens_are_never_proposed(loaded):
    searched = method.Search(loaded, Options(top_k=10**6)).words([text for text, _ in SINGLE])
    every = {c for words in searched for word in words for c in word.candidates}
    assert not {c for c in every if c.startswith("##") or c in tiny.SPECIALS}
    assert "great" in every
    assert set("abcdefghijklmnopqrstuvwxyz") <= every


def test_the_word_itself_keeps_its_spelling():
    assert method.spelt_as("Great", ["good", "great", "", "GREAT", "fine"]) == [
        "good",
        "Great",
        "fine",
    ]


def test_words_of_several_pieces_take_their_neighbours(loaded, tmp_path):
    text = "plots work"  # plot ##s, w ##o ##r ##k
    (words,) = method.Search(loaded, Options(top_k=5)).words([text])
    assert [len(word.candidates) for word in words] == [5, 5]
    assert "plot" not in words[0].candidates
    assert all(c.isalpha() for word in words for c in word.candidates)

    vectors = tmp_path / "glove.txt"
    vectors.write_text("plots 1 0\nstories 0.9 0.1\nbanana 0 1\n")
    search = method.Search(loaded, Options(top_k=1, word_vectors=str(vectors)))
    (words,) = search.words([text])
    assert words == [Word(0, 5, ["stories"])]  # the file has no vector of `work`: it stays


def test_a_word_that_the_model_cannot_see_stays(loaded):
    text = "great " * 80 + "plots"
    (words,) = method.Search(loaded, Options()).words([text])
    limit = loaded.tokenizer.model_max_length
    assert [word.start // 6 for word in words] == [*range(limit - 1), 80]


def test_rows_are_the_copies_of_each_row_in_order_with_its_label(loaded):
    found = made(loaded, singles())
    assert found
    assert [example.label for example in found] == sorted([e.label for e in found], reverse=True)
    great = [example.texts[0] for example in found if example.label == 1]
    assert 1 < len(great) <= 20
    assert len(set(great)) == len(great)
    for text in great:  # the stop words and marks stand as they stood, case and blanks too
        assert text.startswith("A ")
        assert " , not " in text
        assert text.endswith(" !")
    assert made(loaded, [row("i it was")]) == []
    assert made(loaded, singles(), p=0.0) == []


def test_at_p_1_every_eligible_word_is_one_of_its_candidates(loaded):
    text = SINGLE[0][0]
    (words,) = method.Search(loaded, Options(top_k=3)).words([text])
    assert len(words) == 3
    found = [e.texts[0].split() for e in made(loaded, singles()[:1], p=1.0, top_k=3, copies=200)]
    for index, word in zip((1, 2, 5), words, strict=True):
        assert {copy[index] for copy in found} == set(word.candidates)


def test_the_copies_of_a_pair_meet_the_original_of_the_other(loaded):
    found = made(loaded, [row(*PAIR, label=0)])
    first = [e for e in found if e.texts[0] != PAIR[0]]
    second = [e for e in found if e.texts[1] != PAIR[1]]
    assert first
    assert second
    assert found == [*first, *second]  # none differs in both
    assert all(e.texts[1] == PAIR[1] for e in first)
    assert all(e.texts[0] == PAIR[0] for e in second)
    assert max(len(first), len(second)) <= 20
    assert {e.label for e in found} == {0}


def test_the_seed_and_the_place_of_a_row_decide_its_copies(loaded):
    rows = singles(3)
    found = made(loaded, rows)
    assert made(loaded, rows) == found
    assert made(loaded, rows, seed=1) != found
    first, second = (made(loaded, rows[:n]) for n in (1, 4))
    assert second[: len(first)] == first
    assert second[-len(first) :] != first  # the same text again, at another place


def asked_of(monkeypatch):
    """What the model is asked, call by call."""
    asked = []
    plain = method.fill_masks

    def noted(loaded, encoded, pairs, count):
        asked.append(list(pairs))
        return plain(loaded, encoded, pairs, count)

    monkeypatch.setattr(method, "fill_masks", noted)
    return asked


def test_a_word_is_asked_about_once_however_often_its_text_stands(loaded, monkeypatch):
    asked = asked_of(monkeypatch)
    monkeypatch.setattr(method, "BLOCK_ROWS", 4)
    made(loaded, singles(4))
    assert [len(pairs) for pairs in asked] == [5]  # great film dull, plot boring


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_what_was_kept_is_not_asked_again_and_the_rows_are_the_same(loaded, done, monkeypatch):
    monkeypatch.setattr(method, "BLOCK_ROWS", 1)
    whole_kept = []
    whole = made(loaded, singles(), whole_kept)
    assert len(whole_kept) == 3
    asked = asked_of(monkeypatch)
    kept = whole_kept[:done]
    assert made(loaded, singles(), kept) == whole
    assert len(asked) == 3 - done
    assert kept == whole_kept


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_the_size_of_a_block_changes_no_row(loaded, rows, monkeypatch):
    wanted = made(loaded, singles(2))
    monkeypatch.setattr(method, "BLOCK_ROWS", rows)
    assert made(loaded, singles(2)) == wanted


def test_rows_come_as_they_are_read(loaded, monkeypatch):
    monkeypatch.setattr(method, "BLOCK_ROWS", 1)
    read = []

    def rows():
        for one in singles():
            read.append(one)
            yield one

    first = next(method.generate(loaded, rows(), Options(), Work(0, [])))
    assert isinstance(first, Example)
    assert len(read) == 1


def test_a_tokenizer_without_a_mask_is_refused(loaded):
    tokenizer = tiny.tokenizer()
    tokenizer.mask_token = None
    other = SimpleNamespace(**{**vars(loaded), "tokenizer": tokenizer})
    with pytest.raises(InputError, match="no mask token"):
        made(other, singles())
