"""Fewer words by the command line: the corpus's pieces and outputs stay, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models

import small_tokenizers
import tiny
from compressor.cli import run
from compressor.methods.transforms.trim_vocabulary import counts_of, phrases_in

CLASSES, MASKED, CAUSAL = (
    f"AutoModelFor{name}" for name in ("SequenceClassification", "MaskedLM", "CausalLM")
)
GPT2 = lambda: small_tokenizers.byte_bpe("GPT2Tokenizer")  # noqa: E731
CASES = {
    "bert": ("bert", tiny.tokenizer, CLASSES, {}),
    "bert, masked": ("bert", tiny.tokenizer, MASKED, {}),
    "bert, masked, untied": ("bert", tiny.tokenizer, MASKED, {"tie_word_embeddings": False}),
    "roberta": ("roberta", small_tokenizers.byte_bpe, CLASSES, {}),
    "xlm-roberta": ("xlm-roberta", small_tokenizers.unigram, CLASSES, {}),
    "xlm-roberta, masked": ("xlm-roberta", small_tokenizers.unigram, MASKED, {}),
    "gpt2, causal": ("gpt2", GPT2, CAUSAL, {}),
    "gpt2, causal, untied": ("gpt2", GPT2, CAUSAL, {"tie_word_embeddings": False}),
}
TASKS = {CLASSES: "text-classification", MASKED: "masked-lm", CAUSAL: "causal-lm"}


def write(folder: Path, **splits: list[str]) -> Path:
    """A data folder with a row for every text; its labels go by turns."""
    folder.mkdir()
    for split, texts in splits.items():
        rows = [{"text": text, "label": tiny.LABELS[n % 2]} for n, text in enumerate(texts)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def prune(*words: str) -> int:
    return run(["prune", *words[:1], "--method", "trim_vocabulary", *words[1:]])


def aligned(model):
    """The model with its weights where torch puts new ones: a file's places move last bits."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.eval()


def facts(folder: Path) -> dict:
    return json.loads((folder / "compression.json").read_text())["steps"][-1]["metrics"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = small_tokenizers.corpus()
    write(tmp_path / "data", train=texts[:2], validation=texts[2:4], test=texts[4:])
    tiny.checkpoint(tmp_path / "bert")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_pieces_and_outputs_of_the_corpus_stay(case, here, capsys):
    family, make_tokenizer, head, changes = CASES[case]
    tokenizer = make_tokenizer()
    model = small_tokenizers.model(family, head, tokenizer, **changes)
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    words = ("model", "--data", "data", "--task", TASKS[head], "--device", "cpu")
    assert prune(*words, "-o", "small") == 0
    assert "MB of embeddings go" in capsys.readouterr().err

    small, report = getattr(transformers, head).from_pretrained("small", output_loading_info=True)
    assert not any(report.values())
    model, small = aligned(model), aligned(small)
    before = transformers.AutoTokenizer.from_pretrained("model")
    after = transformers.AutoTokenizer.from_pretrained("small")
    assert type(after) is type(before)
    assert small.config.vocab_size == len(after) < len(before)
    kept = before.convert_tokens_to_ids(after.convert_ids_to_tokens(range(len(after))))
    for text in small_tokenizers.corpus():
        assert before.tokenize(text) == after.tokenize(text)
        with torch.inference_mode():
            wanted = model(**before(text, return_tensors="pt"), output_hidden_states=True)
            found = small(**after(text, return_tensors="pt"), output_hidden_states=True)
        assert torch.equal(wanted.hidden_states[-1], found.hidden_states[-1])
        if head == CLASSES:
            assert torch.equal(wanted.logits, found.logits)
        else:  # how a product is cut into blocks depends on the number of words
            torch.testing.assert_close(wanted.logits[..., kept], found.logits)
    for text in small_tokenizers.OTHER:
        ids = after(text, return_tensors="pt")
        assert after.decode(ids["input_ids"][0])
        assert small(**ids).logits.isfinite().all()
    for name in ("pad", "bos", "eos"):
        expected = getattr(after, f"{name}_token_id")
        assert getattr(small.config, f"{name}_token_id") == expected
        assert (expected is None) == (getattr(before, f"{name}_token_id") is None)
    if head == CAUSAL:
        assert small.generation_config.eos_token_id == after.eos_token_id
    if "roberta" in family:
        assert after.pad_token_id == before.pad_token_id == 1

    # A row of 32 and perhaps a bias; twice where the output layer has its own.
    of_a_word = (32 + (head == MASKED)) * (1 if model.config.tie_word_embeddings else 2)
    expected = {
        "words_before": len(before),
        "words_after": len(after),
        "embedding_parameters_before": len(before) * of_a_word,
        "embedding_parameters_after": len(after) * of_a_word,
    }
    assert facts(here / "small").items() >= expected.items()


def vocabulary(folder: str = "small") -> set[str]:
    return set(transformers.AutoTokenizer.from_pretrained(folder).get_vocab())


def test_every_split_is_read_to_the_end_of_every_row(here):
    long = " ".join(["the"] * 300) + " superb"
    write(here / "more", train=["good", "bad"], validation=[long], test=["lovely"])
    assert prune("bert", "--data", "more", "--max-length", "16", "-o", "small") == 0
    assert {"good", "bad", "the", "superb", "lovely", "a", "##a", "[MASK]"} <= vocabulary()
    assert not {"awful", "film"} & vocabulary()


def test_text_without_labels_trims_a_classifier(here, capsys):
    (here / "text.txt").write_text("the movie was great\nit works\n")
    assert prune("bert", "--data", "text.txt", "--task", "masked-lm", "-o", "small") == 0
    assert "rows for masked-lm give it no score" in capsys.readouterr().err
    assert {"movie", "works"} <= vocabulary()
    assert "plot" not in vocabulary()


def test_both_texts_of_a_pair_count(here):
    row = {"sentence1": "the film", "sentence2": "my phone", "label": "positive"}
    (here / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    assert prune("bert", "--data", "pairs.jsonl", "-o", "small") == 0
    assert {"film", "phone"} <= vocabulary()


def test_rare_words_go_and_words_to_keep_stay(here):
    write(here / "more", train=["great film", "great plot", "great film bad"])
    (here / "words.txt").write_text("superb\n\n my battery \n")
    words = ("bert", "--data", "more", "--min-count", "2", "--keep-words", "words.txt")
    assert prune(*words, "-o", "small") == 0
    kept = vocabulary()
    assert {"great", "film", "superb", "my", "battery"} <= kept
    assert not {"plot", "bad", "awful"} & kept
    after = transformers.AutoTokenizer.from_pretrained("small")
    assert after.tokenize("plot") == ["p", "##l", "##o", "##t"]
    options = json.loads((here / "small" / "compression.json").read_text())["steps"][-1]["options"]
    assert options["keep_words"]["name"] == "words.txt"


def test_how_often_by_hand():
    tokenizer = tiny.tokenizer()
    counts = counts_of(tokenizer, [["the film the", "the"], ["film!"]])
    expected = {"the": 3, "film": 2, "!": 1}
    assert {tokenizer.convert_ids_to_tokens(token): n for token, n in counts.items()} == expected


def test_a_phrase_to_keep_is_read_at_the_start_and_inside_a_text(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffcafé\r\n\n  two words \n", encoding="utf-8")
    found = phrases_in(str(tmp_path / "words.txt"))
    assert found == ["café", " café", "two words", " two words"]


def test_a_corpus_that_uses_every_word_changes_nothing(here):
    # All single characters stay anyway, and so do special tokens.
    write(here / "all", train=[" ".join(tiny.WORDS), "good"])
    assert prune("bert", "--data", "all", "--device", "cpu", "-o", "same") == 0
    assert facts(here / "same")["words_after"] == facts(here / "same")["words_before"] == 144
    assert prune("same", "--data", "all", "--device", "cpu", "-o", "again") == 0
    for name in ("model.safetensors", "config.json"):
        assert (here / "bert" / name).read_bytes() == (here / "same" / name).read_bytes(), name
    # transformers rewrites another tool's tokenizer once; after that every byte stays.
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (here / "same" / name).read_bytes() == (here / "again" / name).read_bytes(), name
    assert vocabulary("bert") == vocabulary("again")


def test_a_word_that_only_fewer_pieces_could_write_is_refused(here, capsys):
    # "abc" is unknown: after "ab" no piece writes "c". Without the unused "ab" it would be "a bc".
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "ab", "##bc", "xa"]
    tokenizer = transformers.BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)})
    small_tokenizers.model("bert", CLASSES, tokenizer).save_pretrained("odd")
    tokenizer.save_pretrained("odd")
    write(here / "more", train=["abc", "xabc"])
    words = ("odd", "--data", "more", "-o", "small")
    assert prune(*words) == 3
    assert "'abc'" in capsys.readouterr().err
    assert not (here / "small").exists()
    (here / "words.txt").write_text("ab")
    assert prune(*words, "--keep-words", "words.txt") == 0
    assert transformers.AutoTokenizer.from_pretrained("small").tokenize("abc") == ["[UNK]"]


def test_wrong_inputs_are_refused_in_words(here, capsys):
    assert prune("bert", "-o", "small") == 2
    assert "--data" in capsys.readouterr().err

    core = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "film": 2}, unk_token="[UNK]"))
    core = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]"
    )
    small_tokenizers.model("bert", CLASSES, core).save_pretrained("word-level")
    core.save_pretrained("word-level")
    assert prune("word-level", "--data", "data", "-o", "small") == 3
    assert "WordLevel" in capsys.readouterr().err

    small_tokenizers.model("bert", CLASSES, tiny.tokenizer()).save_pretrained("slow")
    (here / "vocab.txt").write_text("\n".join(tiny.tokenizer().get_vocab()))
    slow = transformers.BertJapaneseTokenizer("vocab.txt", word_tokenizer_type="basic")
    slow.save_pretrained("slow")
    assert prune("slow", "--data", "data", "-o", "small") == 3
    assert "a BertJapaneseTokenizer has no tokenizer.json" in capsys.readouterr().err

    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained("bert")
    assert prune("bert", "--data", "data", "-o", "small") == 3
    assert "up to 144, and the model has embeddings of 144" in capsys.readouterr().err

    (here / "words.txt").write_text(" \n")
    assert prune("bert", "--data", "data", "--keep-words", "words.txt", "-o", "small") == 3
    assert "no words" in capsys.readouterr().err
    (here / "words.txt").write_bytes(b"\xff\xfe\x00")
    assert prune("bert", "--data", "data", "--keep-words", "words.txt", "-o", "small") == 3
    assert "UTF-8" in capsys.readouterr().err
    assert prune("bert", "--data", "data", "--keep-words", "no.txt", "-o", "small") == 3
    assert "no.txt" in capsys.readouterr().err
    assert prune("bert", "--data", "data", "--min-count", "0", "-o", "small") == 2
    assert "--min-count" in capsys.readouterr().err
    assert not (here / "small").exists()
