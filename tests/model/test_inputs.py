"""Which entries of a batch reach a model."""

import pytest
import torch

import tiny
from compressor.model.inputs import fed
from compressor.model.views import LOGITS, look

BATCH = {
    "input_ids": torch.tensor([[2, 32, 3, 40, 3]]),
    "attention_mask": torch.ones(1, 5, dtype=torch.long),
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1]]),
    "labels": torch.tensor([1]),
    "rows": torch.tensor([0]),
}


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "roberta", "gpt2", "llama"])
def test_token_types_reach_the_families_that_have_a_table_of_them(family):
    wanted = {"input_ids", "attention_mask"}
    if family in ("bert", "electra"):
        wanted.add("token_type_ids")
    sizes = {"type_vocab_size": 1} if family == "roberta" else {}  # as RoBERTa's own has it
    assert set(fed(tiny.model(family, **sizes), BATCH)) == wanted


def test_one_batch_feeds_a_teacher_with_token_types_and_a_student_without():
    shows = frozenset({LOGITS})
    bert, student = tiny.model(), tiny.model("distilbert")
    with torch.no_grad():
        taught = look(bert, BATCH, shows, bare=bert).logits
        learnt = look(student, BATCH, shows, bare=student).logits
        inputs = {name: BATCH[name] for name in ("input_ids", "attention_mask")}
        torch.testing.assert_close(learnt, student(**inputs).logits)
        assert not torch.equal(taught, bert(**inputs).logits)
