"""The model types that can be opened, and what their configs and tensors are called.

Only what a check without torch needs: the config keys of depth and widths, the embedding tables,
and the few tensors that only some layers have. Where layers sit is the same for all of them: in a
numbered container (`layer`, `layers`, `h`, `block`, `albert_layer_groups`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

OWN_PREFIX = "compressor_"
# Before a family's name: its layers differ in heads and feed-forward width.
PRUNED_PREFIX = f"{OWN_PREFIX}pruned_"
_LAYER = re.compile(
    r"^(?P<stack>(?:.*?[./])??(?:layer|layers|h|block|albert_layer_groups))[./](?P<index>\d+)[./]"
    r"(?P<inner>.+)$"
)
# Constants that some tools save beside the weights; no parameter, and nothing misses them.
_BUFFER = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias)$")


@dataclass(frozen=True)
class Family:
    """Names of one model type.

    Attributes:
        hidden: config key of the hidden width.
        heads: config key of the number of attention heads.
        layers: config key of the depth.
        ffn: config key of the width inside the feed-forward part.
        decoder_layers: config key of the decoder's depth, where there are two stacks.
        stored_layers: config key of the number of layers that are stored, where layers share.
        head_width: config key that frees the heads from dividing the hidden width.
        words: endings of the table of word embeddings, any one of which must be there.
        word_width: config key of that table's width.
        positions: ending of the table of positions; empty where there is none.
        position_rows: config key of that table's length.
        extra_positions: rows beyond that number.
        uneven: parts of tensor names that only some layers have.
        text: whether the model reads text and needs a tokenizer.
        transposed: whether a linear map is stored as [in, out].
    """

    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    layers: str = "num_hidden_layers"
    ffn: str = "intermediate_size"
    decoder_layers: str = ""
    stored_layers: str = ""
    head_width: str = "head_dim"
    words: tuple[str, ...] = ("embeddings.word_embeddings.weight",)
    word_width: str = "hidden_size"
    positions: str = "embeddings.position_embeddings.weight"
    position_rows: str = "max_position_embeddings"
    extra_positions: int = 0
    uneven: tuple[str, ...] = ()
    text: bool = True
    transposed: bool = False


_BERT = Family()
_NARROW = replace(_BERT, word_width="embedding_size")
_LLAMA = replace(_BERT, words=("embed_tokens.weight",), positions="")
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": replace(
        _BERT, hidden="dim", heads="n_heads", layers="n_layers", ffn="hidden_dim", word_width="dim"
    ),
    "electra": _NARROW,
    "albert": replace(_NARROW, stored_layers="num_hidden_groups"),
    "mpnet": _BERT,
    "deberta": _NARROW,
    "deberta-v2": _NARROW,
    "modernbert": replace(
        _BERT, words=("embeddings.tok_embeddings.weight",), positions="", uneven=("attn_norm.",)
    ),
    "gpt2": replace(
        _BERT,
        hidden="n_embd",
        heads="n_head",
        layers="n_layer",
        ffn="n_inner",
        words=("wte.weight",),
        word_width="n_embd",
        positions="wpe.weight",
        position_rows="n_positions",
        transposed=True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "phi": _LLAMA,
    "smollm3": _LLAMA,
    "t5": Family(
        hidden="d_model",
        heads="num_heads",
        layers="num_layers",
        decoder_layers="num_decoder_layers",
        ffn="d_ff",
        head_width="d_kv",
        words=("shared.weight", "embed_tokens.weight"),
        word_width="d_model",
        positions="",
        uneven=("relative_attention_bias.",),
    ),
    "bart": Family(
        hidden="d_model",
        heads="encoder_attention_heads",
        layers="encoder_layers",
        decoder_layers="decoder_layers",
        ffn="encoder_ffn_dim",
        words=("shared.weight", "embed_tokens.weight"),
        word_width="d_model",
        positions="embed_positions.weight",
        extra_positions=2,
    ),
    "vit": replace(_BERT, words=(), positions="", text=False),
}


def is_known(model_type: str) -> bool:
    """Whether checkpoints of this type can be opened: in the table, or one of our own."""
    return model_type in FAMILIES or model_type.startswith(OWN_PREFIX)


def base_family(model_type: str) -> str:
    """The family that a model type belongs to: its own name, or that before pruning."""
    return model_type.removeprefix(PRUNED_PREFIX)


def reads_text(model_type: str) -> bool:
    """Whether models of this type read text; one that is not known is taken to."""
    return FAMILIES.get(base_family(model_type), Family()).text


def split_layer(name: str) -> tuple[str, int, str] | None:
    """(stack, index, rest) of a tensor inside a transformer layer; None for any other.

    `bert.encoder.layer.3.output.dense.bias` is ("bert.encoder.layer", 3, "output.dense.bias").
    """
    match = _LAYER.match(name)
    return (match["stack"], int(match["index"]), match["inner"]) if match else None


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the matrix of a linear map inside a transformer layer."""
    # The only other matrix in a layer is a table: T5's of distances.
    matrix = len(shape) == 2 and name.endswith(".weight") and "relative_attention_bias" not in name
    return matrix and split_layer(name) is not None


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a stored constant (positions, causal masks) rather than a parameter."""
    # Old GPT-2 files carry the causal mask of every layer under the name of a bias.
    causal_mask = name.endswith(".attn.bias") and len(shape) == 4
    return causal_mask or bool(_BUFFER.search(name))
