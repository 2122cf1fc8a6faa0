"""A DistilBERT that computes what its BERT teacher computes, and says what it cannot."""

import json

import pytest
import torch
import transformers

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.students import distilbert
from compressor.model.load import Loaded

MASKED, CLASSES, BARE = "AutoModelForMaskedLM", "AutoModelForSequenceClassification", "AutoModel"
TEXTS = ["great film", "a very long awful dull plot"]


def teacher(head=MASKED, **sizes):
    made = tiny.model(head=head, num_hidden_layers=4, **sizes)
    # A fresh model's biases and norms are all alike: mixing them up would go unnoticed.
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            noise = torch.Generator().manual_seed(number)
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return Loaded(made, tiny.tokenizer(), None, None)


def build(origin, **options):
    return distilbert.build(origin, distilbert.Options(**options))


def states(loaded, **options):
    """Hidden states of TEXTS with padding set to 0, [layers + 1, batch, length, width]."""
    tokens = tiny.tokenizer()(TEXTS, padding=True, return_tensors="pt")
    tokens.pop("token_type_ids")
    with torch.no_grad():
        hidden = loaded.model(**tokens, output_hidden_states=True).hidden_states
    return torch.stack(hidden) * tokens["attention_mask"][None, :, :, None]


@pytest.mark.parametrize("head", [MASKED, CLASSES, BARE])
def test_all_layers_copied_with_folded_types_it_is_the_teacher(head):
    origin = teacher(head)
    student = build(origin, layers=4)
    assert type(student.model).__name__ == distilbert.CLASSES[type(origin.model).__name__]
    torch.testing.assert_close(states(student), states(origin), atol=1e-4, rtol=0)


def test_dropped_types_shift_the_input_of_the_first_layer():
    origin = teacher()
    dropped = states(build(origin, layers=4, token_types="drop"))
    assert (dropped[0] - states(origin)[0]).abs().max() > 0.01


def test_the_masked_lm_head_comes_along_and_stays_tied():
    origin = teacher()
    student = build(origin, layers=4).model
    ids = torch.tensor([[2, 32, 21, 3]])
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, origin.model(ids).logits, atol=1e-4, rtol=0)
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight


def test_an_untied_head_stays_untied():
    config = tiny.config(labels=None)
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    origin = Loaded(transformers.BertForMaskedLM(config).eval(), tiny.tokenizer(), None, None)
    student = build(origin, layers=2).model
    ids = torch.tensor([[2, 32, 21, 3]])
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, origin.model(ids).logits)
    words = student.distilbert.embeddings.word_embeddings.weight
    assert not torch.equal(student.vocab_projector.weight, words)


def test_layers_are_chosen_as_for_any_copy():
    origin = teacher()
    theirs = origin.model.bert.encoder.layer
    for options, kept in (({}, [0, 3]), ({"layer_map": "1,2,0"}, [1, 2, 0])):
        student = build(origin, **options).model
        assert student.config.n_layers == len(kept)
        for mine, index in zip(student.distilbert.transformer.layer, kept, strict=True):
            assert torch.equal(mine.ffn.lin1.weight, theirs[index].intermediate.dense.weight)
    with pytest.raises(UsageError, match="4 layers"):
        build(origin, layers=5)


def test_the_teacher_is_untouched():
    origin = teacher()
    before = {name: value.clone() for name, value in origin.model.state_dict().items()}
    student = build(origin)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(v, before[n]) for n, v in origin.model.state_dict().items())
    assert "token_type_ids" in origin.tokenizer("great", "film")


def test_sizes_rates_and_classes_are_carried_over():
    origin = teacher(CLASSES)
    config = origin.model.config
    config.hidden_dropout_prob, config.attention_probs_dropout_prob = 0.3, 0.2
    config.hidden_act, config.problem_type = "relu", "single_label_classification"
    made = build(origin).model.config
    assert (made.dropout, made.attention_dropout, made.seq_classif_dropout) == (0.3, 0.2, 0.3)
    assert (made.activation, made.problem_type) == ("relu", "single_label_classification")
    assert (made.hidden_dim, made.max_position_embeddings, made.pad_token_id) == (64, 66, 0)
    assert made.id2label == {0: "negative", 1: "positive"}
    config.classifier_dropout = 0.4
    assert build(origin).model.config.seq_classif_dropout == 0.4


def test_a_classifier_starts_fresh_and_the_same_for_the_same_seed():
    origin, heads = teacher(CLASSES), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(build(origin).model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("head", [MASKED, CLASSES, BARE])
def test_plain_transformers_reload_it_whole(head, tmp_path):
    student = build(teacher(head))
    student.model.save_pretrained(tmp_path)
    student.tokenizer.save_pretrained(tmp_path)
    model, report = getattr(transformers, head).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "distilbert"
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)("great film", "bad plot")
    assert set(tokens) == {"input_ids", "attention_mask"}
    mine = states(student)
    torch.testing.assert_close(states(Loaded(model.eval(), None, None, None)), mine)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_decoder": True}, "decoder"),
        ({"add_cross_attention": True}, "decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"layer_norm_eps": 1e-5}, "1e-05"),
    ],
)
def test_a_bert_that_distilbert_cannot_express_is_refused(changes, said):
    origin = teacher()
    for name, value in changes.items():
        setattr(origin.model.config, name, value)
    with pytest.raises(InputError, match=said):
        build(origin)


def test_other_families_and_heads_are_refused_by_name():
    roberta = Loaded(tiny.model("roberta", head=MASKED), tiny.tokenizer(), None, None)
    with pytest.raises(InputError, match="roberta"):
        build(roberta)
    tagger = Loaded(tiny.model(head="AutoModelForTokenClassification"), None, None, None)
    with pytest.raises(InputError, match="BertForTokenClassification"):
        build(tagger)
