import numpy as np

from compressor.export.cpu import may_saturate
from compressor.export.rounding import quantize_product, quantize_rows


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


def test_products_leave_room_for_two_neighbours():
    values, scale = quantize_product(np.array([[-1, -0.3, 0, 0.4, 0.8]], np.float32))
    np.testing.assert_allclose(scale, [[1.3 / 127]], rtol=1e-6)
    assert values.tolist() == [[-98, -29, 0, 39, 78]]


def test_neighbours_that_cancel_change_nothing():
    weight = np.array([[1, -1, 0.5, -0.2]], np.float32)
    for found, expected in zip(quantize_product(weight), quantize_rows(weight), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_products_never_saturate():
    draw = np.random.default_rng(0)
    for width in (7, 64, 384):
        weight = draw.normal(size=(500, width)).astype(np.float32)
        values, scale = quantize_product(weight)
        assert not may_saturate(values)
        assert may_saturate(quantize_rows(weight)[0])
        assert (np.abs(weight - values * scale) <= scale * 0.5001).all()
