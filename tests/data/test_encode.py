import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import tiny
from compressor.data.encode import encode
from compressor.data.rows import Row
from compressor.data.tasks import TASKS
from compressor.errors import InputError, MachineError, UsageError

CLASSIFY, REGRESS = TASKS["text-classification"], TASKS["regression"]
MASKED, CAUSAL = TASKS["masked-lm"], TASKS["causal-lm"]
FILE = Path("train.jsonl")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def bare(tokenizer):
    """A tokenizer that adds no special tokens, as GPT-2's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(("<end>", "<unk>", *tiny.WORDS))}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>")


def rows(*texts, labels=None):
    labels = labels or [0] * len(texts)
    pairs = [(text,) if isinstance(text, str) else text for text in texts]
    return [Row(i + 1, FILE, pairs[i], labels[i]) for i in range(len(pairs))]


def sequences(encoded):
    return [
        encoded.ids[a:b].tolist()
        for a, b in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
    ]


def sentences(count, words, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(tiny.WORDS, k=draw.randint(1, words))) for _ in range(count)]


def test_single_texts(tokenizer, tmp_path):
    texts = ["the movie was good", "bad", "nice food and great service"]
    encoded = encode(
        rows(*texts, labels=[1, 0, 1]), tokenizer, CLASSIFY, max_length=16, folder=tmp_path / "new"
    )
    assert sequences(encoded) == tokenizer(texts)["input_ids"]
    assert len(encoded) == 3
    assert encoded.lengths.tolist() == [6, 3, 7]
    assert encoded.labels.tolist() == [1, 0, 1]
    assert encoded.labels.dtype == np.int64
    assert encoded.types is None
    assert isinstance(encoded.ids, np.memmap)
    assert encoded.ids.dtype == np.int32


def test_numbers(tokenizer, tmp_path):
    made = rows("good", "bad", labels=[2.5, 0.0])
    encoded = encode(made, tokenizer, REGRESS, max_length=16, folder=tmp_path)
    assert encoded.labels.dtype == np.float32
    assert encoded.labels.tolist() == [2.5, 0.0]


def test_pairs_have_types(tokenizer, tmp_path):
    made = rows(("the movie", "was good"), ("", "food"))
    encoded = encode(made, tokenizer, CLASSIFY, max_length=16, folder=tmp_path)
    expected = tokenizer(["the movie", ""], ["was good", "food"])
    assert sequences(encoded) == expected["input_ids"]
    flat = [kind for kinds in expected["token_type_ids"] for kind in kinds]
    assert encoded.types.tolist() == flat
    assert encoded.types.dtype == np.uint8


@pytest.mark.parametrize("length", [5, 8, 13])
def test_truncation_is_that_of_the_tokenizer(tokenizer, tmp_path, length):
    first, second = sentences(200, 12), sentences(200, 12, seed=1)
    expected = tokenizer(first, second, truncation=True, max_length=length)
    made = rows(*zip(first, second, strict=True))
    encoded = encode(made, tokenizer, CLASSIFY, max_length=length, folder=tmp_path)
    assert sequences(encoded) == expected["input_ids"]
    assert encoded.types.tolist() == [t for types in expected["token_type_ids"] for t in types]
    expected = tokenizer(first, truncation=True, max_length=length)
    encoded = encode(rows(*first), tokenizer, CLASSIFY, max_length=length, folder=tmp_path)
    assert sequences(encoded) == expected["input_ids"]


def test_case_33_truncated_rows_are_counted(tokenizer, tmp_path, capsys):
    made = rows("good " * 30, "bad", "fine " * 14)
    encoded = encode(made, tokenizer, CLASSIFY, max_length=10, folder=tmp_path)
    assert (encoded.truncated, encoded.longest) == (2, 32)
    assert encoded.lengths.max() == 10
    words = "2 of 3 rows are cut to 10 tokens; the longest has 32"
    assert words in capsys.readouterr().err
    encode(rows("bad"), tokenizer, CLASSIFY, max_length=10, folder=tmp_path)
    assert capsys.readouterr().err == ""


def test_case_33_on_long_error(tokenizer, tmp_path):
    with pytest.raises(InputError, match="a row of 32 tokens; at most 10 fit") as refused:
        encode(
            rows("bad", "good " * 30),
            tokenizer,
            CLASSIFY,
            max_length=10,
            folder=tmp_path,
            on_long="error",
        )
    assert refused.value.where == "train.jsonl:2"


def test_case_34_empty_texts_are_kept_and_counted(tokenizer, tmp_path, capsys):
    encoded = encode(
        rows("good", "", "bad", "  "), tokenizer, CLASSIFY, max_length=10, folder=tmp_path
    )
    assert encoded.lengths.tolist() == [3, 2, 3, 2]
    assert encoded.empty == 2
    assert "2 of 4 rows have an empty text and are kept (lines 2, 4)" in capsys.readouterr().err


def test_case_34_no_warning_below_one_per_cent(tokenizer, tmp_path, capsys):
    encoded = encode(rows("", *["good"] * 100), tokenizer, CLASSIFY, max_length=10, folder=tmp_path)
    assert encoded.empty == 1
    assert capsys.readouterr().err == ""


def test_case_34_unknown_texts(tokenizer, tmp_path, capsys):
    made = rows("good", "漢字", "good 漢字", "")
    encoded = encode(made, tokenizer, CLASSIFY, max_length=10, folder=tmp_path)
    assert encoded.unknown == 1
    assert "1 of 4 rows hold no word that the tokenizer knows" in capsys.readouterr().err


def test_a_sequence_is_never_empty(bare, tmp_path):
    made = rows("", "the film", "", "good", "")
    encoded = encode(made, bare, CLASSIFY, max_length=10, folder=tmp_path)
    end = bare.eos_token_id
    film, good = bare(["the film", "good"])["input_ids"]
    assert sequences(encoded) == [[end], film, [end], good, [end]]


def test_masked_lm_cuts_a_long_row_into_several(tokenizer, tmp_path, capsys):
    text = "the a an and or not is"
    encoded = encode(rows(text, "good"), tokenizer, MASKED, max_length=5, folder=tmp_path)
    whole = tokenizer(text)["input_ids"]
    start, end, words = whole[0], whole[-1], whole[1:-1]
    assert sequences(encoded) == [
        [start, *words[:3], end],
        [start, *words[3:6], end],
        [start, *words[6:], end],
        tokenizer("good")["input_ids"],
    ]
    assert encoded.labels is None
    assert encoded.truncated == 0
    assert capsys.readouterr().err == ""


def test_causal_lm_loses_no_token(bare, tmp_path):
    texts = sentences(50, 40)
    encoded = encode(rows(*texts), bare, CAUSAL, max_length=16, folder=tmp_path)
    assert encoded.ids.tolist() == [t for ids in bare(texts)["input_ids"] for t in ids]
    assert encoded.lengths.max() == 16


def test_language_models_leave_out_empty_rows(tokenizer, tmp_path, capsys):
    encoded = encode(rows("", "good", " "), tokenizer, MASKED, max_length=8, folder=tmp_path)
    assert sequences(encoded) == tokenizer(["good"])["input_ids"]
    assert "2 of 3 rows have an empty text and are left out" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of the 2 rows has a text"):
        encode(rows("", " "), tokenizer, MASKED, max_length=8, folder=tmp_path)


def test_language_models_join_a_pair(tokenizer, tmp_path):
    encoded = encode(rows(("good", "film")), tokenizer, MASKED, max_length=8, folder=tmp_path)
    assert sequences(encoded) == tokenizer(["good film"])["input_ids"]
    assert encoded.types is None


def test_refusals(tokenizer, tmp_path):
    with pytest.raises(InputError, match="no rows"):
        encode([], tokenizer, CLASSIFY, max_length=8, folder=tmp_path)
    with pytest.raises(UsageError, match="no room beside 2 special tokens"):
        encode(rows("good film"), tokenizer, CLASSIFY, max_length=2, folder=tmp_path)
    with pytest.raises(InputError, match="not a fast tokenizer"):
        encode(rows("good"), object(), CLASSIFY, max_length=8, folder=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        encode(rows("good"), tokenizer, CLASSIFY, max_length=8, folder=tmp_path / "file" / "below")


def test_several_chunks_are_one_array(tokenizer, tmp_path):
    texts = sentences(2500, 8)
    labels = [i % 3 for i in range(2500)]
    made = rows(*texts, labels=labels)
    encoded = encode(made, tokenizer, CLASSIFY, max_length=32, folder=tmp_path)
    assert sequences(encoded) == tokenizer(texts)["input_ids"]
    assert encoded.labels.tolist() == labels


def peak_of_encoding(count, tokenizer, folder):
    text = "the movie was a very good film and the food was nice " * 4

    def stream():
        for line in range(1, count + 1):
            yield Row(line, FILE, (text,), line % 2)

    tracemalloc.start()
    encoded = encode(stream(), tokenizer, CLASSIFY, max_length=64, folder=folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(encoded) == count
    return peak


def test_case_36_memory_does_not_grow_with_the_rows(tokenizer, tmp_path):
    small = peak_of_encoding(2_000, tokenizer, tmp_path)
    large = peak_of_encoding(6_000, tokenizer, tmp_path)
    # 4,000 more rows have 0.8 MB of ids on disk, and 0.1 MB of offsets, lengths and labels
    assert large < small + 300_000


@pytest.mark.slow
def test_case_36_twenty_megabytes(tokenizer, tmp_path):
    assert peak_of_encoding(100_000, tokenizer, tmp_path) < 20_000_000
