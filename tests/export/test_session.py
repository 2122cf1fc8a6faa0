import numpy as np
import onnx
import onnxruntime
import pytest

from compressor.errors import InputError, MachineError
from compressor.export.session import open_session


def arrays(bert, **more):
    return {name: tensor.numpy() for name, tensor in bert.example.items()} | more


def test_runs_and_ignores_what_the_graph_does_not_take(bert):
    session = open_session(bert.folder, threads=1)
    assert session.input_names == tuple(bert.example)
    assert session.device == "cpu"
    output = session.run(arrays(bert, labels=np.zeros(2)))
    assert output.shape == (2, 2)
    assert output.dtype == np.float32


def test_int32_ids_are_taken_too(bert):
    session = open_session(bert.folder, threads=1)
    short = {name: array.astype(np.int32) for name, array in arrays(bert).items()}
    np.testing.assert_array_equal(session.run(short), session.run(arrays(bert)))


def test_missing_inputs_are_named(bert):
    inputs = arrays(bert)
    del inputs["attention_mask"]
    with pytest.raises(InputError, match="missing: attention_mask"):
        open_session(bert.folder, threads=1).run(inputs)


def test_a_failing_run_is_told_in_words_and_nothing_is_printed(bert, capfd):
    inputs = arrays(bert, attention_mask=np.ones((2, 3), np.int64))
    with pytest.raises(InputError, match="cannot run on"):
        open_session(bert.folder, threads=1).run(inputs)
    assert tuple(capfd.readouterr()) == ("", "")


def test_an_empty_or_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"no model.onnx here; found: nothing"):
        open_session(tmp_path, threads=1)
    with pytest.raises(InputError, match="no such folder"):
        open_session(tmp_path / "gone", threads=1)


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_broken_file_is_refused_quietly(bert, tmp_path, capfd, keep):
    (tmp_path / "model.onnx").write_bytes(bert.path.read_bytes()[:keep])
    with pytest.raises(InputError):
        open_session(tmp_path, threads=1)
    assert tuple(capfd.readouterr()) == ("", "")


def test_an_operator_that_does_not_exist_is_refused_quietly(bert, tmp_path, capfd):
    model = onnx.load(bert.path)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="ONNX Runtime cannot load"):
        open_session(tmp_path, threads=1)
    assert tuple(capfd.readouterr()) == ("", "")


def test_external_data_outside_the_folder_is_refused(bert, tmp_path):
    model = onnx.load(bert.path)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="secret.bin")
    with pytest.raises(InputError, match=r"secret.bin"):
        open_session(tmp_path, threads=1)


def test_cuda_without_a_build_that_has_it(bert, monkeypatch):
    only_cpu = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: only_cpu)
    with pytest.raises(MachineError, match="no CUDA"):
        open_session(bert.folder, threads=1, cuda=True)
