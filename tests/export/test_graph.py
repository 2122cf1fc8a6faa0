import numpy as np
import onnx
import pytest
import torch
import transformers

from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.errors import InputError
from compressor.export.graph import accepted_inputs, export_graph
from compressor.export.parity import check_parity, random_inputs
from compressor.export.session import open_session

from . import families


def check_float(family, head, folder, opset=None):
    model, example = families.build(family, head), families.example(family, head)
    export_graph(model, example, folder / "model.onnx", opset=opset)
    facts = check_parity(model, folder, random_inputs(model, example))
    assert facts["error"] <= 1e-5
    graph = onnx.load(folder / "model.onnx").graph
    assert [value.name for value in graph.input] == list(example)
    return graph


def axes(value) -> list:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_bert_agrees_with_torch(bert):
    facts = check_parity(bert.model, bert.folder, random_inputs(bert.model, bert.example))
    assert facts["error"] <= 1e-5
    graph = onnx.load(bert.path).graph
    assert [value.name for value in graph.input] == list(bert.example)
    assert all(axes(value) == ["batch", "length"] for value in graph.input)
    assert [(value.name, axes(value)) for value in graph.output] == [("logits", ["batch", 2])]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "head"), families.CASES)
def test_every_family_and_head_from_a_folder(family, head, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    families.checkpoint(tmp_path / "model", family, head)
    capfd.readouterr()  # saving draws a bar
    assert run("export model -o graph".split()) == 0
    assert tuple(capfd.readouterr()) == ("graph\n", "")
    facts = open_checkpoint(tmp_path / "graph").steps[-1]["metrics"]
    assert facts["float_parity"]["error"] <= 1e-5
    assert facts["quantized"] >= 8
    assert facts["embeddings"] == (family != "vit")
    assert facts["parity"]["error"] <= 0.1
    output = onnx.load(tmp_path / "graph/model.onnx").graph.output[0]
    assert output.name == ("last_hidden_state" if head == "AutoModel" else "logits")
    assert axes(output)[0] == "batch"
    if len(axes(output)) == 3 and family != "vit":
        decoder = family == "t5" and head != families.CLASSIFIER
        assert axes(output)[1] == ("decoder_length" if decoder else "length")

    model = getattr(transformers, head).from_pretrained(tmp_path / "model").eval()
    inputs = families.example(family, head)
    with torch.no_grad():
        wanted = model(**inputs)[0].numpy()
    session = open_session(tmp_path / "graph", threads=1)
    given = {name: tensor.numpy() for name, tensor in inputs.items()}
    if (
        "token_type_ids" in session.input_names
    ):  # of a table that the family's own tokenizer never uses
        given.setdefault("token_type_ids", np.zeros_like(given["input_ids"]))
    found = session.run(given)
    per_token = wanted.shape[:2] == (2, 12)
    kept = inputs["attention_mask"].bool().numpy() if per_token else slice(None)
    np.testing.assert_allclose(found[kept], wanted[kept], atol=0.1 * np.abs(wanted).max())


def test_a_decoders_tokens_are_traced_apart_from_the_texts(tmp_path):
    from compressor.model.save import probe_inputs

    model = families.build("t5", "AutoModelForSeq2SeqLM")
    inputs = probe_inputs(model)
    assert inputs["decoder_input_ids"] is not inputs["input_ids"]


@pytest.mark.slow
def test_an_older_opset_traces_attention_plainly(tmp_path):
    graph = check_float("bert", families.CLASSIFIER, tmp_path, opset=18)
    assert "Attention" not in {node.op_type for node in graph.node}


def test_opsets_out_of_range_are_refused(bert, tmp_path):
    for opset in (11, 99):
        with pytest.raises(InputError, match=f"opset {opset}"):
            export_graph(bert.model, bert.example, tmp_path / "model.onnx", opset=opset)


def test_inputs_that_the_model_does_not_take_are_left_out():
    example = families.example("bert")  # with token_type_ids, as a BERT tokenizer makes them
    names = accepted_inputs(families.build("distilbert"), example)
    assert list(names) == ["input_ids", "attention_mask"]


def test_weights_have_their_modules_names(bert):
    names = {tensor.name for tensor in onnx.load(bert.path).graph.initializer}
    matrices = {n for n, p in bert.model.named_parameters() if p.dim() == 2}
    assert matrices <= names


def test_nothing_of_this_machine_is_in_the_file(bert):
    content = bert.path.read_bytes()
    for text in (b".py", b"site-packages", b"torch", b"transformers"):
        assert text not in content


def test_the_model_is_left_as_it_was(bert):
    assert bert.model.config._attn_implementation == "eager"
    assert not bert.model.training


class Stubborn(torch.nn.Module):
    """Branches on a value, which no graph can hold."""

    def forward(self, input_ids):
        if input_ids.sum() > 3:
            return {"logits": input_ids.float()}
        return {"logits": -input_ids.float()}


class Headless(torch.nn.Module):
    def forward(self, input_ids):
        return {"scores": input_ids.float()}


@pytest.mark.slow
def test_a_model_that_onnx_cannot_express_is_refused_in_words(tmp_path, capfd):
    example = {"input_ids": torch.ones(2, 4, dtype=torch.long)}
    with pytest.raises(InputError, match="Stubborn cannot be exported") as caught:
        export_graph(Stubborn(), example, tmp_path / "model.onnx")
    assert "\x1b" not in caught.value.message
    assert not (tmp_path / "model.onnx").exists()
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_model_without_a_known_output_is_refused(tmp_path):
    example = {"input_ids": torch.ones(2, 4, dtype=torch.long)}
    with pytest.raises(InputError, match="neither logits nor last_hidden_state"):
        export_graph(Headless(), example, tmp_path / "model.onnx")
