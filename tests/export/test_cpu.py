import numpy as np
import pytest

from compressor.export import cpu


def test_two_neighbours_beyond_128_may_saturate():
    assert cpu.may_saturate(np.array([[127, 2]], np.int8))
    assert cpu.may_saturate(np.array([[-100, -29]], np.int8))
    assert not cpu.may_saturate(np.array([[127, 1]], np.int8))
    assert not cpu.may_saturate(np.array([[127, -127]], np.int8))  # the products cancel


def test_only_the_pairs_that_the_kernel_adds_count():
    assert not cpu.may_saturate(np.array([[1, 127, 127, 1]], np.int8))
    assert cpu.may_saturate(np.array([[127, 127, 1, 1]], np.int8))


def test_an_odd_column_has_no_neighbour():
    assert not cpu.may_saturate(np.array([[1, 1, 127]], np.int8))
    assert not cpu.may_saturate(np.array([[-128]], np.int8))


@pytest.mark.parametrize(
    ("preset", "kind"), [("x86", "uint8"), ("vnni", "int8"), ("arm64", "int8")]
)
def test_weights_that_may_saturate_become_uint8_where_products_are_cut(preset, kind):
    assert cpu.weight_type(np.full((3, 4), 127, np.int8), preset) == kind


def test_safe_weights_stay_int8_everywhere():
    assert cpu.weight_type(np.full((3, 4), 64, np.int8), "x86") == "int8"


@pytest.mark.parametrize(
    ("architecture", "features", "preset"),
    [
        ("x86_64", ["avx2"], "x86"),
        ("x86_64", ["avx2", "avx512f", "avx512bw"], "x86"),
        ("x86_64", ["avx2", "avx512_vnni"], "vnni"),
        ("AMD64", ["avx2", "avx_vnni"], "vnni"),
        ("AMD64", [], "x86"),
        ("aarch64", ["asimd"], "arm64"),
        ("arm64", [], "arm64"),
    ],
)
def test_preset_from_processor_flags(monkeypatch, architecture, features, preset):
    facts = {"architecture": architecture, "features": features}
    monkeypatch.setattr(cpu, "machine_facts", lambda threads: facts)
    assert cpu.cpu_preset() == preset
