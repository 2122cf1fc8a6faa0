import pytest

from compressor.measure.scaling import fit, grid, scaling_of


def rows(fixed, token, pair, shapes):
    return [
        {"batch": b, "length": n, "p50_ms": fixed + token * b * n + pair * b * n * n}
        for b, n in shapes
    ]


@pytest.mark.parametrize("prices", [(2.0, 0.01, 1e-4), (0.5, 0.0, 2e-4), (0.0, 0.02, 0.0)])
def test_the_prices_of_exact_times_are_found(prices):
    found = fit(rows(*prices, grid(512)))
    assert [found[k] for k in ("fixed_ms", "token_ms", "pair_ms")] == pytest.approx(
        prices, abs=1e-7
    )
    assert found["error"] == pytest.approx(0, abs=1e-6)


def test_no_price_is_below_zero_and_the_error_says_what_does_not_fit():
    found = fit([*rows(1.0, 0.01, 0.0, grid(128)), {"batch": 1, "length": 256, "p50_ms": 1.0}])
    assert min(found[k] for k in ("fixed_ms", "token_ms", "pair_ms")) >= 0
    assert found["error"] > 0.5


def test_the_grid_ends_where_the_positions_do():
    assert max(length for _, length in grid(100)) == 64
    assert len(grid(512)) == 18
    assert sorted({length for _, length in grid(12)}) == [3, 6, 12]
    assert sorted({length for _, length in grid(20)}) == [5, 10, 20]
    assert len(grid(1)) == 3


def test_the_share_is_that_of_the_products():
    found = scaling_of(rows(2.0, 0.01, 0.0, [(1, 100), (1, 200), (4, 100)]),
                       rows(1.0, 0.005, 0.0, [(1, 100), (1, 200), (4, 100)]))  # fmt: skip
    assert [row["share"] for row in found["rows"]] == [0.5, 0.5, 0.5]
    assert found["rows"][2]["products_ms"] == 3.0
