"""Masked positions in batches: the same answers as one sentence at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tiny
from compressor.model import fill
from compressor.model.fill import fill_masks, like_batches, logits_at, whole_words

TEXTS = ["the food was great", "a very slow and broken phone", "i loved it"]


def loaded(family="bert"):
    model = tiny.model(family, head="AutoModelForMaskedLM", labels=None)
    return SimpleNamespace(model=model, tokenizer=tiny.tokenizer())


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "roberta", "electra", "albert", "mpnet", "deberta-v2"]
)
def test_the_head_sees_one_position_and_says_the_same(family):
    model = loaded(family).model
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    places = torch.tensor([1, 8, 4])
    with torch.inference_mode():
        every = model(**inputs).logits
        found = logits_at(model, inputs, places)
    assert found.shape == (3, every.shape[-1])
    assert torch.allclose(found, every[torch.arange(3), places], atol=1e-5)
    with torch.inference_mode():  # the hook is gone
        assert model(**inputs).logits.shape == every.shape


def test_each_answer_is_that_of_its_sentence_alone(monkeypatch):
    one = loaded()
    encoded = one.tokenizer(TEXTS, TEXTS)
    asked = [(2, 1), (0, 4), (1, 2), (0, 1), (1, 6)]
    found = fill_masks(one, encoded, asked, 7)
    for (text, place), tokens in zip(asked, found.tolist(), strict=True):
        inputs = one.tokenizer(TEXTS[text], TEXTS[text], return_tensors="pt")
        assert inputs["token_type_ids"].any()  # the original is the second segment
        inputs["input_ids"][0, place] = one.tokenizer.mask_token_id
        with torch.inference_mode():
            wanted = one.model(**inputs).logits[0, place].topk(7).indices.tolist()
        assert tokens == wanted
    monkeypatch.setattr(fill, "BATCH_TOKENS", 1)  # every sequence alone
    assert (fill_masks(one, encoded, asked, 7) == found).all()


def test_nothing_asked_and_more_asked_than_there_are_tokens():
    one = loaded()
    encoded = one.tokenizer(TEXTS, TEXTS)
    assert fill_masks(one, encoded, [], 5).shape == (0, 5)
    size = len(one.tokenizer)
    assert sorted(fill_masks(one, encoded, [(0, 1)], 10**6)[0]) == list(range(size))


def test_batches_are_of_like_length_and_hold_each_once():
    lengths = np.array([3, 9, 3, 5, 9, 20])
    batches = [batch.tolist() for batch in like_batches(lengths, 18)]
    assert batches == [[5], [1, 4], [3, 0, 2]]


def test_words_of_their_own_are_neither_special_nor_the_ends_of_words():
    one = loaded()
    words = whole_words(one)
    assert len(words) == len(one.tokenizer)
    by_token = {one.tokenizer.convert_ids_to_tokens(i): word for i, word in enumerate(words)}
    assert by_token["great"] == "great"
    assert by_token["##g"] == ""
    assert not any(by_token[token] for token in tiny.SPECIALS)


def test_words_of_tokenizers_that_mark_the_beginnings_of_words():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "Ġfilm": 1, "ing": 2, "ĠcafÃ©": 3, "Ġgood": 4}
    core = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    model = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(7, 2))
    words = whole_words(SimpleNamespace(model=model, tokenizer=tokenizer))
    assert words == ["", "film", "", "café", "good", "", ""]  # the table has two rows to spare
