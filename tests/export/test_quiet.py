import logging
import sys
import warnings

import pytest

from compressor import console
from compressor.export.quiet import quiet_libraries


def chatter():
    print("said")
    sys.stderr.write("shouted\n")
    warnings.warn("warned", stacklevel=1)
    logging.getLogger("chatty").error("logged")


def test_nothing_gets_out_and_afterwards_everything_does(capfd):
    with quiet_libraries():
        chatter()
    assert tuple(capfd.readouterr()) == ("", "")
    print("after")
    assert capfd.readouterr().out == "after\n"
    assert logging.root.manager.disable == 0


def test_errors_travel(capfd):
    with pytest.raises(RuntimeError, match="real"), quiet_libraries():
        raise RuntimeError("real")
    assert logging.root.manager.disable == 0


def test_debug_lets_everything_through(monkeypatch, capfd):
    monkeypatch.setattr(console.settings, "debug", True)
    with pytest.warns(UserWarning, match="warned"), quiet_libraries():
        chatter()
    assert "said" in capfd.readouterr().out
