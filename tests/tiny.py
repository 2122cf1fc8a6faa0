"""Two-layer models with a real tokenizer, made in a moment and small enough for every test."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = [
    "the",
    "a",
    "an",
    "and",
    "or",
    "not",
    "is",
    "was",
    "were",
    "very",
    "really",
    "quite",
    "this",
    "that",
    "it",
    "movie",
    "film",
    "plot",
    "acting",
    "food",
    "service",
    "phone",
    "battery",
    "sound",
    "screen",
    "place",
    "price",
    "great",
    "good",
    "fine",
    "nice",
    "lovely",
    "superb",
    "excellent",
    "wonderful",
    "bad",
    "poor",
    "awful",
    "terrible",
    "dull",
    "boring",
    "slow",
    "broken",
    "cheap",
    "works",
    "failed",
    "loved",
    "hated",
    "enjoyed",
    "i",
    "we",
    "they",
    "my",
    "our",
    "with",
    "without",
    "for",
    "of",
    "in",
    "on",
    "at",
    "to",
    "from",
]
GOOD = ("great", "good", "fine", "nice", "lovely", "superb", "excellent", "wonderful")
BAD = ("bad", "poor", "awful", "terrible", "dull", "boring", "slow", "broken")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS = ("negative", "positive")


def tokenizer():
    """A lower-casing WordPiece tokenizer over WORDS and all single letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    pieces = [*SPECIALS, *WORDS, *(c for c in "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")]
    pieces += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return BertTokenizerFast(tokenizer_object=core, model_max_length=64)


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}


def config(family: str = "bert", *, labels: tuple[str, ...] | None = LABELS, **sizes: int):
    """A small configuration of `family` ("bert", "roberta", "distilbert", "gpt2", "llama" ...)."""
    from transformers import AutoConfig

    made = AutoConfig.for_model(family)
    for name, value in {**SIZES, **sizes, "vocab_size": len(tokenizer())}.items():
        setattr(made, name, value)
    if family in ("llama", "mistral", "qwen2"):
        made.num_key_value_heads = 2
        made.head_dim = made.hidden_size // made.num_attention_heads
    if hasattr(made, "pooler_hidden_size"):
        made.pooler_hidden_size = made.hidden_size
    # The usual 0.02 is meant for widths of hundreds; at 32 nothing would be learnt in a minute.
    made.initializer_range = 0.15
    if getattr(made, "layer_types", None):
        made.layer_types = made.layer_types[: made.num_hidden_layers]
    made.pad_token_id = 0
    if labels is not None:
        made.id2label = dict(enumerate(labels))
        made.label2id = {name: index for index, name in enumerate(labels)}
    return made


def model(
    family: str = "bert",
    *,
    head: str = "AutoModelForSequenceClassification",
    labels: tuple[str, ...] | None = LABELS,
    seed: int = 0,
    **sizes: int,
):
    """A random model of `family` with the given head, in evaluation mode, fp32."""
    import torch
    import transformers

    torch.manual_seed(seed)
    return getattr(transformers, head).from_config(config(family, labels=labels, **sizes)).eval()


def checkpoint(folder: Path, family: str = "bert", **options) -> Path:
    """Save `model(family, **options)` and its tokenizer to `folder`, as another tool would."""
    model(family, **options).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def prune_smallest(model, sparsity: float = 0.5, scope: str = "uniform") -> None:
    """Zero the smallest weights of the linear maps inside the layers, in place."""
    from compressor.model.layers import encoder_linears
    from compressor.model.masks import apply_masks, unstructured

    modules = encoder_linears(model)
    scores = {name: module.weight.detach().abs() for name, module in modules.items()}
    apply_masks(modules, unstructured(scores, sparsity, scope))


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` rows of text whose label depends on one word: a 2-layer model learns it."""
    import random

    draw = random.Random(seed)
    made = []
    for _ in range(count):
        label = draw.choice(LABELS)
        words = draw.choices(WORDS[:28], k=draw.randint(3, 12))
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if label == "positive" else BAD))
        made.append({"text": " ".join(words), "label": label})
    return made


def data(folder: Path, train: int = 64, validation: int = 32, seed: int = 0) -> Path:
    """A data folder with train.jsonl and validation.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, offset in (("train", train, 0), ("validation", validation, 1)):
        lines = [json.dumps(row) for row in rows(count, seed * 1000 + offset)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


COLOURS = ("blue", "green", "red")


def images(folder: Path, train: int = 48, validation: int = 24, seed: int = 0) -> Path:
    """A data folder with noisy pictures of 20 x 20 in which one colour is stronger."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("validation", validation)):
        lines = []
        for number in range(count):
            colour = number % 3
            values = draw.integers(0, 120, (20, 20, 3), dtype=np.uint8)
            values[..., 2 - colour] += 100  # red, green, blue
            name = f"images/{split}{number}.{'jpg' if number % 2 else 'png'}"
            Image.fromarray(values).save(folder / name)
            lines.append(json.dumps({"image": name, "label": COLOURS[colour]}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def vit(folder: Path, side: int = 16, labels: tuple[str, ...] | None = None, **sizes: int) -> Path:
    """Save a random ViT, and how its images are made ready; without `labels` it names none."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "image_size": side, "patch_size": 4}
    torch.manual_seed(0)
    config = ViTConfig(**{**shape, **sizes}, initializer_range=0.2)
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
    made = ViTForImageClassification(config)
    made.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder
