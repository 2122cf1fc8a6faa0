"""What several verbs' tests measure."""

import pytest

from compressor.cli import run


@pytest.fixture(scope="session")
def exported(workshop):
    """The teacher as int8 and as ONNX, beside it."""
    for name in ("int8", "onnx"):
        if (workshop / name).exists():
            continue
        source, verb = ("teacher", "quantize") if name == "int8" else ("int8", "export")
        assert run([verb, f"{workshop / source}", "-o", f"{workshop / name}"]) == 0
    return workshop


@pytest.fixture
def here(exported, tmp_path, monkeypatch):
    """An empty folder to work in; gives the one that holds the teacher's kinds."""
    monkeypatch.chdir(tmp_path)
    return exported
