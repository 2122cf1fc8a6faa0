from __future__ import annotations

import json
import subprocess
import sys

from compressor.measure.machine import (
    _processor,
    add_load_after,
    library_versions,
    machine_facts,
)

INTEL = """processor\t: 0
model name\t: Example 9000 @ 2.1GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""

ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimddp i8mm
"""


def test_facts_are_plain_data_and_complete():
    facts = json.loads(json.dumps(machine_facts(2), allow_nan=False))
    assert facts["threads"] == 2
    assert facts["cpu"]
    assert 1 <= facts["cores_allowed"] <= facts["cores"]
    assert facts["memory_bytes"] > 1e8
    assert facts["versions"]["numpy"].count(".") == 2
    assert set(facts["features"]) <= set(machine_facts(1)["features"])


def test_load_is_read_before_and_after():
    before = machine_facts(1)
    assert before["load_average"]["after"] is None
    after = add_load_after(before)
    assert len(after["load_average"]["after"]) == 3
    assert after["load_average"]["before"] == before["load_average"]["before"]
    assert before["load_average"]["after"] is None


def test_processors_of_both_families_are_read(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(INTEL)
    name, flags = _processor(file)
    assert name == "Example 9000 @ 2.1GHz"
    assert {"avx512_vnni", "amx_int8"} <= flags
    file.write_text(ARM)
    name, flags = _processor(file)
    assert name == ""
    assert {"asimddp", "i8mm"} <= flags
    assert _processor(tmp_path / "absent") == ("", frozenset())


def test_absent_packages_are_left_out():
    assert "no-such-package-anywhere" not in library_versions(["numpy", "no-such-package-anywhere"])


def test_the_room_loads_no_heavy_library():
    code = (
        "import sys\n"
        "import compressor.measure.html, compressor.measure.latency, compressor.measure.machine\n"
        "compressor.measure.machine.machine_facts(1)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'sklearn', 'scipy', 'onnxruntime'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
