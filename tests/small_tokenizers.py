"""Tokenizers of every kind, trained in a moment on the words of `tiny`."""

from __future__ import annotations

import tiny

# Texts with characters that no word of `tiny` has.
OTHER = ["Zoë's café — 5 €!", "日本語 text", "unheard-of wörds\twith\nblanks"]
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


def sentences() -> list[str]:
    """Texts that use every word of `tiny.WORDS`."""
    return [row["text"] for row in tiny.rows(200)] + [" ".join(tiny.WORDS)] * 5


def corpus() -> list[str]:
    """Texts that use some of the words."""
    return ["the movie was great", "a dull plot, and bad acting!", "Great food. It was fine"] * 2


def byte_bpe(name: str = "RobertaTokenizer"):
    """Byte-level BPE in the class `name` of transformers."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sentences(), trainer)
    model = _model_of(core)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    names |= {"mask_token": "<mask>"} if name == "RobertaTokenizer" else {}
    merges = [tuple(pair) for pair in model["merges"]]
    made = getattr(transformers, name)(vocab=model["vocab"], merges=merges, **names)
    made.model_max_length = 64
    return made


def unigram():
    """Unigram as XLM-R has it, its mask token at the end of the vocabulary."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator(sentences(), trainer)
    vocabulary = [tuple(entry) for entry in _model_of(core)["vocab"]]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=64)


def _model_of(core) -> dict:
    import json

    return json.loads(core.to_str())["model"]


def model(family: str, head: str, tokenizer, **config: object):
    """A random model of `family` whose ids are those of `tokenizer`."""
    import torch
    import transformers

    labels = tiny.LABELS if "Sequence" in head else None
    made = tiny.config(family, labels=labels)
    made.vocab_size = len(tokenizer)
    for name in ("pad", "bos", "eos"):
        setattr(made, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    for name, value in config.items():
        setattr(made, name, value)
    torch.manual_seed(0)
    return getattr(transformers, head).from_config(made).eval()
