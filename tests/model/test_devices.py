"""Where models run: one place for all that are compared."""

import onnxruntime
import pytest
import torch

from compressor.errors import MachineError
from compressor.model.devices import common_device, gpu_facts, peak_gpu_bytes


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize(
    ("wanted", "graphs", "providers", "expected"),
    [
        ("auto", False, [], "cuda"),
        ("auto", True, ["CPUExecutionProvider"], "cpu"),
        ("auto", True, ["CUDAExecutionProvider"], "cuda"),
        ("cpu", False, [], "cpu"),
        ("cuda", True, ["CPUExecutionProvider"], "cuda"),  # refused where the graph is opened
    ],
)
def test_all_models_run_on_one_device(wanted, graphs, providers, expected, gpu, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert common_device(wanted, graphs=graphs) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    assert common_device("auto", graphs=False) == "cpu"
    assert gpu_facts("cpu") is None
    assert peak_gpu_bytes() is None
    with pytest.raises(MachineError, match="sees no GPU"):
        common_device("cuda", graphs=False)
