"""A DistilBERT made from a BERT teacher: some of its layers, no token types, no pooler.

V. Sanh, L. Debut, J. Chaumond, T. Wolf: DistilBERT, a distilled version of BERT, 2019, arXiv
1910.01108; with the authors' code.

    student layer i = teacher layer round(i (N - 1) / (M - 1)),  i = 0 ... M - 1

for N teacher and M student layers. Word embeddings, positions and the masked-LM head (transform,
its normalisation, the decoder and its bias) are copied, and a decoder that is tied to the word
embeddings stays tied. The result is the `distilbert` type of transformers.

BERT adds row 0 of its token-type table to every token of a single text. `fold` adds that row to
every position instead, so that the layers get the very same input; the authors drop it. The second
segment of a pair is told apart only by the separator, either way.

A classifier starts fresh. BERT reads tanh(W h + b) of the first token, DistilBERT ReLU(W h + b):
a copied head would weigh features that are now cut off below zero and have no bound above.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.methods.depth import LAYER_MAP_HELP, LAYERS_HELP, chosen_layers
from compressor.methods.option import option

if TYPE_CHECKING:
    import torch
    from transformers import DistilBertConfig, PretrainedConfig, PreTrainedTokenizerBase

    from compressor.model.load import Loaded

VERBS = ("distill",)
CLASSES = {
    "BertModel": "DistilBertModel",
    "BertForMaskedLM": "DistilBertForMaskedLM",
    "BertForSequenceClassification": "DistilBertForSequenceClassification",
}
# DistilBERT's own is 1e-12 and cannot be set. Up to here outputs agree to about 1e-4.
LARGEST_EPSILON = 1e-7
EMBEDDINGS = ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
MODULES_OF_A_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
MODULES_OF_THE_HEAD = {
    "cls.predictions.transform.dense": "vocab_transform",
    "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
    "cls.predictions.decoder": "vocab_projector",
}


@dataclass(frozen=True)
class Options:
    """How many layers the student copies, which, and what becomes of the token types."""

    layers: int = option(0, LAYERS_HELP, low=0, source="DistilBERT")
    layer_map: str = option("", LAYER_MAP_HELP)
    token_types: str = option(
        "fold",
        "add the token-type row of single texts to the positions, or drop it as the paper does",
        choices=("fold", "drop"),
    )


def student_tensors(
    teacher: dict[str, torch.Tensor], kept: list[int], token_types: str
) -> dict[str, torch.Tensor]:
    """The teacher's tensors under DistilBERT's names, without a base-model prefix.

    Args:
        teacher: the state of a BERT, its body's names starting at `embeddings.` or `encoder.`,
            those of a masked-LM head at `cls.`.
        kept: the teacher layer of each student layer.
        token_types: "fold" adds row 0 of the token-type table to every position; "drop" does not.
    """
    made = {f"embeddings.{name}": teacher[f"embeddings.{name}"] for name in EMBEDDINGS}
    positions = teacher["embeddings.position_embeddings.weight"]  # [positions, width]
    if token_types == "fold":
        positions = positions + teacher["embeddings.token_type_embeddings.weight"][0]
    made["embeddings.position_embeddings.weight"] = positions
    pairs = [
        (f"encoder.layer.{theirs}.{old}", f"transformer.layer.{own}.{new}")
        for own, theirs in enumerate(kept)
        for old, new in MODULES_OF_A_LAYER.items()
    ]
    if "cls.predictions.decoder.weight" in teacher:
        pairs += MODULES_OF_THE_HEAD.items()
    for old, new in pairs:
        for kind in ("weight", "bias"):
            made[f"{new}.{kind}"] = teacher[f"{old}.{kind}"]
    return made


def student_config(teacher: PretrainedConfig, layers: int) -> DistilBertConfig:
    """DistilBERT's configuration with the teacher's sizes, dropout, classes and special tokens.

    Args:
        teacher: a BERT's configuration.
        layers: the student's depth.
    """
    from transformers import DistilBertConfig

    dropout = teacher.hidden_dropout_prob
    own = teacher.classifier_dropout
    kept = ("id2label", "label2id", "problem_type", "chunk_size_feed_forward")
    return DistilBertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings,
        n_layers=layers,
        n_heads=teacher.num_attention_heads,
        dim=teacher.hidden_size,
        hidden_dim=teacher.intermediate_size,
        activation=teacher.hidden_act,
        dropout=dropout,
        attention_dropout=teacher.attention_probs_dropout_prob,
        seq_classif_dropout=dropout if own is None else own,
        initializer_range=teacher.initializer_range,
        pad_token_id=teacher.pad_token_id,
        bos_token_id=teacher.bos_token_id,
        eos_token_id=teacher.eos_token_id,
        tie_word_embeddings=teacher.tie_word_embeddings,
        **{name: getattr(teacher, name) for name in kept},
    )


def build(teacher: Loaded, options: Options) -> Loaded:
    """A DistilBERT that starts from the teacher's weights; a classifier's head is random.

    Raises:
        InputError: the teacher is no BERT, or one that DistilBERT cannot express.
        UsageError: layers that the teacher does not have.
    """
    import transformers

    refuse_inexpressible(teacher.model)
    config = teacher.model.config
    kept = chosen_layers(config.num_hidden_layers, options.layers, options.layer_map)
    state = {
        name.removeprefix("bert."): tensor for name, tensor in teacher.model.state_dict().items()
    }
    student = getattr(transformers, CLASSES[type(teacher.model).__name__])(
        student_config(config, len(kept))
    )
    student.set_attn_implementation(config._attn_implementation)
    own = student.state_dict()
    for name, tensor in student_tensors(state, kept, options.token_types).items():
        prefixed = f"distilbert.{name}"
        # Values go into the tensors that are there, which leaves tied ones tied.
        own[prefixed if prefixed in own else name].copy_(tensor)
    return replace(
        teacher.with_model(student.eval()), tokenizer=without_token_types(teacher.tokenizer)
    )


def without_token_types(
    tokenizer: PreTrainedTokenizerBase | None,
) -> PreTrainedTokenizerBase | None:
    """The same tokenizer, which no longer makes token types unless asked, also once saved."""
    if tokenizer is None:
        return None
    made = copy.deepcopy(tokenizer)
    names = [name for name in made.model_input_names if name != "token_type_ids"]
    made.model_input_names = names
    made.init_kwargs["model_input_names"] = names  # what is written to tokenizer_config.json
    return made


def refuse_inexpressible(model: Any) -> None:
    """Refuse a teacher whose layers DistilBERT's cannot stand for.

    Raises:
        InputError: says what is different.
    """
    config, name = model.config, type(model).__name__
    hint = "--student copy_layers keeps the teacher's family"
    if config.model_type != "bert":
        raise InputError(
            f"a distilbert student is made from a bert teacher; this one is {config.model_type}",
            hint=hint,
        )
    wrong = []
    if config.is_decoder or config.add_cross_attention:
        wrong.append("it is a decoder, whose tokens see only those before them")
    elif name not in CLASSES:
        wrong.append(f"no distilbert is like a {name}; there are {', '.join(CLASSES)}")
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        wrong.append(f"its positions are {positions}, DistilBERT's absolute")
    if config.layer_norm_eps > LARGEST_EPSILON:
        wrong.append(f"its layer_norm_eps is {config.layer_norm_eps:g}, DistilBERT's always 1e-12")
    if wrong:
        raise InputError(f"this bert cannot become a distilbert: {'; '.join(wrong)}", hint=hint)
