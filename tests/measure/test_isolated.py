"""Candidates in processes of their own; what they open is text, which every process can read."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from compressor.errors import InputError, MachineError
from compressor.measure.isolated import Isolated
from compressor.measure.latency import measure_in_turns

NOTHING = "lambda batch, length: lambda: None"


def opened(code, name="candidate", cores=()):
    return Isolated(name, partial(eval, code), cores)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_calls_are_made_in_another_process_and_it_ends_with_the_context(tmp_path):
    note = tmp_path / "pid"
    code = f"lambda b, n: lambda: open({str(note)!r}, 'w').write(str(__import__('os').getpid()))"
    with opened(code) as candidate:
        assert len(candidate.prepare(1, 8)(3)) == 3
        pid = int(note.read_text())
        assert pid != os.getpid()
        assert alive(pid)
    assert not alive(pid)


def test_inputs_are_of_the_shape_and_turns_can_be_taken():
    code = "lambda b, n: lambda: __import__('time').sleep(b * n / 1000)"
    with opened(code) as slow, opened(NOTHING) as fast:
        candidates = {"slow": slow.prepare, "fast": fast.prepare}
        rows = measure_in_turns(candidates, [(2, 3), (1, 2)], warmup=1, rounds=3)
        assert [row["p50_ms"] >= low for row, low in zip(rows["slow"], (6, 2), strict=True)]
        assert rows["fast"][0]["p50_ms"] < rows["slow"][0]["p50_ms"]
        assert slow.first_ms >= 6
        assert slow.open_ms > 0


def test_the_peak_of_memory_grows_with_what_is_held():
    code = "lambda b, n: lambda: b'x' * (b * 1_000_000)"
    with opened(code) as candidate:
        candidate.prepare(1, 1)(1)
        small = candidate.peak_memory_bytes()
        candidate.prepare(100, 1)(1)
        large = candidate.peak_memory_bytes()
    if small is None:
        pytest.skip("this system does not say how much memory a process held")
    assert 90_000_000 < large - small < 200_000_000


def test_what_opening_raises_is_raised_here():
    code = (
        "(_ for _ in ()).throw(__import__('compressor.errors').errors.InputError('no', hint='h'))"
    )
    with pytest.raises(InputError, match="no") as caught:
        opened(code)
    assert caught.value.hint == "h"


def test_a_process_that_ends_is_named():
    with (
        opened("lambda b, n: lambda: __import__('os')._exit(9)", "hungry") as candidate,
        pytest.raises(MachineError, match="hungry ended"),
    ):
        candidate.prepare(1, 1)(1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_it_is_held_to_its_cores():
    core = min(os.sched_getaffinity(0))
    check = f"__import__('os').sched_getaffinity(0) == {{{core}}} or __import__('os')._exit(1)"
    with opened(f"lambda b, n: lambda: {check}", cores=(core,)) as candidate:
        candidate.prepare(1, 1)(1)


def test_nothing_is_left_when_the_parent_is_killed(tmp_path):
    note = tmp_path / "pid"
    write = f"open({str(note)!r}, 'w').write(str(__import__('os').getpid()))"
    code = f"lambda b, n: lambda: ({write}, __import__('time').sleep(60))"
    program = (
        "from functools import partial\n"
        "from compressor.measure.isolated import Isolated\n"
        "if __name__ == '__main__':\n"
        f"    candidate = Isolated('a', partial(eval, {code!r}), ())\n"
        "    candidate.prepare(1, 1)(1)\n"
    )
    file = tmp_path / "program.py"
    file.write_text(program)
    parent = subprocess.Popen([sys.executable, file])
    waited = time.monotonic() + 60
    while not (note.exists() and note.read_text()) and time.monotonic() < waited:
        time.sleep(0.05)
    pid = int(note.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    waited = time.monotonic() + 20
    while alive(pid) and time.monotonic() < waited:
        time.sleep(0.05)
    assert not alive(pid)
