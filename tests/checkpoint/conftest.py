"""A fresh whole checkpoint for each test that wants to break one."""

from __future__ import annotations

import pytest

from checkpoint import folders


@pytest.fixture
def folder(tmp_path):
    return folders.make(tmp_path / "tiny")
