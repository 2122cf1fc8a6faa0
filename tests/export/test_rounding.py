import numpy as np

from compressor.export.rounding import quantize_rows


def test_hand_values():
    values, scale = quantize_rows(np.array([[-1, -0.3, 0, 0.4, 0.8]], np.float32))
    assert values.tolist() == [[-127, -38, 0, 51, 102]]
    np.testing.assert_allclose(scale, [[1 / 127]], rtol=1e-6)


def test_each_row_has_its_own_scale():
    values, scale = quantize_rows(np.array([[1, -0.4], [0.01, 0.004]], np.float32))
    assert values.tolist() == [[127, -51], [127, 51]]
    assert scale.shape == (2, 1)
    np.testing.assert_allclose(scale[0], 100 * scale[1], rtol=1e-6)


def test_a_row_of_zeros_stays_zero():
    values, scale = quantize_rows(np.zeros((2, 3), np.float32))
    assert not values.any()
    assert scale.tolist() == [[1.0], [1.0]]


def test_error_is_at_most_half_a_step():
    weight = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    values, scale = quantize_rows(weight)
    assert values.dtype == np.int8
    assert (np.abs(weight - values * scale) <= scale * 0.5001).all()
