"""Two-layer models of every family that the export must take, with inputs."""

from __future__ import annotations

from pathlib import Path

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "vocab_size": 150,
}
OWN = {
    "distilbert": {"hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1},
    "gpt2": {"n_inner": 64},
    "llama": {"num_key_value_heads": 2, "head_dim": 8},
    "t5": {"d_kv": 8, "d_ff": 64, "num_decoder_layers": 2, "decoder_start_token_id": 0},
    "modernbert": {
        "local_attention": 16,
        "layer_types": ["full_attention", "sliding_attention"],
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "pooler_hidden_size": 32,
        "type_vocab_size": 0,
    },
    "vit": {"image_size": 32, "patch_size": 8},
}
CLASSIFIER = "AutoModelForSequenceClassification"
MASKED = "AutoModelForMaskedLM"
ENCODERS = (
    "bert", "roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert",
)  # fmt: skip
CASES = (
    *((family, CLASSIFIER) for family in (*ENCODERS, "gpt2", "llama", "t5")),
    *((family, MASKED) for family in ENCODERS),
    *((family, "AutoModel") for family in (*ENCODERS, "gpt2", "llama", "t5", "vit")),
    ("gpt2", "AutoModelForCausalLM"),
    ("llama", "AutoModelForCausalLM"),
    ("t5", "AutoModelForSeq2SeqLM"),
    ("vit", "AutoModelForImageClassification"),
    ("bert", "AutoModelForTokenClassification"),
)


def checkpoint(folder: Path, family: str, head: str = CLASSIFIER, **sizes: float) -> Path:
    """A saved model as large ones are: its words fill more than 64 kB, and its head reads them."""
    import tiny

    sizes = {"vocab_size": 1200, "tie_word_embeddings": True, **sizes}
    build(family, head, **sizes).save_pretrained(folder)
    if family != "vit":
        tiny.tokenizer().save_pretrained(folder)
    return folder


def build(family: str, head: str = CLASSIFIER, **sizes: float):
    """A random model in evaluation mode with eager attention."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(family)
    for name, value in {**SIZES, **OWN.get(family, {}), **sizes}.items():
        setattr(config, name, value)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 1
    config.num_labels = 2
    torch.manual_seed(0)
    auto = getattr(transformers, head)
    return auto.from_config(config, attn_implementation="eager").eval()


def example(family: str, head: str = CLASSIFIER):
    """Two rows of inputs, the second padded, under the names that the family takes."""
    import torch

    draw = torch.Generator().manual_seed(1)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=draw)}
    ids = torch.randint(3, 149, (2, 12), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    ids = ids * mask
    ids[0, 11] = ids[1, 7] = 1  # T5 classifies by this token
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family in ("bert", "electra", "albert"):
        inputs["token_type_ids"] = torch.zeros_like(ids)
    if family == "t5" and head != CLASSIFIER:
        inputs["decoder_input_ids"] = torch.randint(3, 149, (2, 6), generator=draw)
    return inputs
