"""Fewer rows in embeddings and heads of every family, with the same numbers in them."""

import pytest
import torch
import transformers

import tiny
from compressor.errors import InputError
from compressor.model.vocabulary import fixed_ids, keep_words, word_parameters

MASKED, CAUSAL = "AutoModelForMaskedLM", "AutoModelForCausalLM"
FAMILIES = [
    *((family, MASKED) for family in ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")),
    *((family, MASKED) for family in ("electra", "albert", "mpnet", "deberta", "deberta-v2")),
    ("modernbert", MASKED),
    *((family, CAUSAL) for family in ("gpt2", "llama", "mistral", "qwen2")),
]


def trimmed(model, seed: int = 0) -> list[int]:
    """Trim about half of the words in place; returns the kept ids."""
    rows = model.get_input_embeddings().num_embeddings
    draw = torch.Generator().manual_seed(seed)
    some = torch.randperm(rows, generator=draw)[: rows // 2].tolist()
    kept = sorted({*some, *fixed_ids(model)})
    keep_words(model, kept)
    return kept


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("family", "head"), FAMILIES)
def test_logits_of_kept_words_stay_bit_for_bit_and_come_back(family, head, tied, tmp_path):
    torch.manual_seed(0)
    config = tiny.config(family, labels=None)
    config.tie_word_embeddings = tied
    model = getattr(transformers, head).from_config(config).eval()
    for parameter in word_parameters(model):
        torch.nn.init.normal_(parameter)  # biases too, which are born as zeros
    rows = model.get_input_embeddings().num_embeddings
    twin = getattr(transformers, head).from_config(config).eval()
    twin.load_state_dict(model.state_dict())
    kept = trimmed(model)
    assert model.config.vocab_size == len(kept) < rows
    ids = torch.randint(len(kept), (2, 7), generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.inference_mode():
        wanted = twin(torch.tensor(kept)[ids]).logits[..., kept]
        assert torch.equal(model(ids).logits, wanted)
        assert torch.equal(again.eval()(ids).logits, wanted)
    alike = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    before = twin.get_input_embeddings().weight is twin.get_output_embeddings().weight
    assert alike == before


def test_what_has_a_row_for_every_word():
    sizes = [list(one.shape) for one in word_parameters(tiny.model(head=MASKED))]
    assert sizes == [[144, 32], [144]]  # a tied matrix and the bias of the head
    untied = tiny.model("llama", head=CAUSAL, tie_word_embeddings=False)
    assert [list(one.shape) for one in word_parameters(untied)] == [[144, 32], [144, 32]]
    assert len(word_parameters(tiny.model())) == 1


@pytest.mark.parametrize(
    ("family", "padding", "expected"),
    [
        ("bert", 7, {7}),
        ("roberta", 1, {0, 1, 2}),  # and its end token, 2
        ("xlm-roberta", 5, {0, 1, 2, 3, 4, 5}),
        ("mpnet", 1, {0, 1, 2}),
    ],
)
def test_positions_counted_from_the_padding_id_keep_its_number(family, padding, expected):
    config = tiny.config(family)
    config.pad_token_id = padding
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    assert fixed_ids(model) == expected
    trimmed(model)
    if family != "bert":
        assert model.config.pad_token_id == padding
    table = model.get_input_embeddings()
    assert table.padding_idx == model.config.pad_token_id
    assert table.num_embeddings == len(table.weight)


def test_ids_in_both_configs_follow_and_one_without_a_row_stays():
    model = tiny.model("llama", head=CAUSAL)
    model.config.bos_token_id, model.config.eos_token_id = 40, [50, 60]
    model.config.pad_token_id = 30
    model.generation_config.eos_token_id = [50, 60]
    model.generation_config.bos_token_id = 9999
    model.generation_config.pad_token_id = -1
    model.generation_config.bad_words_ids = [[70, 80], [40]]
    model.generation_config.suppress_tokens = [90]
    kept = sorted(fixed_ids(model))
    assert kept == [0, 30, 40, 50, 60, 70, 80, 90]  # 0 is the table's own padding row
    keep_words(model, kept)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (2, [3, 4])
    assert model.config.pad_token_id == 1
    assert model.generation_config.eos_token_id == [3, 4]
    assert model.generation_config.bos_token_id == 9999
    assert model.generation_config.pad_token_id == -1
    assert model.generation_config.bad_words_ids == [[5, 6], [2]]
    assert model.generation_config.suppress_tokens == [7]


def test_every_table_of_an_encoder_and_a_decoder_follows():
    model = tiny.model("t5", head="AutoModel", labels=None)
    kept = trimmed(model)
    for part in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
        assert part.weight is model.shared.weight
        assert part.num_embeddings == len(part.weight) == len(kept)


def test_all_words_kept_change_nothing():
    model = tiny.model(head=MASKED)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = model.config.to_dict()
    keep_words(model, range(144))
    assert model.config.to_dict() == config
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_family_with_another_row_for_every_word_is_refused():
    config = transformers.BartConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    model = transformers.BartForConditionalGeneration(config)
    with pytest.raises(InputError, match="bart model has a row for every word in final_logits"):
        keep_words(model, sorted({*range(20), *fixed_ids(model)}))
