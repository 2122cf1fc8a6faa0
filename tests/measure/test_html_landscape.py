"""Landscapes in the page, where losses are not finite or all alike."""

import pytest

from compressor.measure.html_landscape import landscape_section

PLACES = [-1.0, 0.0, 1.0]
BOWL = [[2.0, 1.0, 2.0], [1.0, 0.5, 1.0], [2.0, 1.0, 2.0]]


def drawn(name, surface, between=None):
    """A model of a report with this surface, [3, 3]."""
    numbers = dict.fromkeys(("worst", "adaptive_worst", "average", "eigenvalue", "trace"))
    found = {
        "rows": 8, "hessian_rows": 8, "seconds": 1.0, "rho": 0.05, "places": PLACES,
        "lines": [surface[1]] * 3, "surface": surface, "between": between, **numbers,
    }  # fmt: skip
    return {"name": name, "landscape": found}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "surface",
    [
        [[None] * 3] * 3,
        [[1.0] * 3] * 3,
        [[None, 1.0, None], [1.0, 0.5, 1.0], [None, 1.0, None]],
        [[9.0] * 3] * 3,
    ],
)
def test_what_has_no_contour_is_drawn_without(surface):
    way = {"places": PLACES, "losses": [1.0, None, 2.0]}
    alone = landscape_section({"models": [drawn("odd", surface)]})
    beside = landscape_section({"models": [drawn("a", BOWL), drawn("odd", surface, way)]})
    for page in (alone, beside):
        assert "<h2>Loss landscape</h2>" in page
        assert ("no loss is finite" in page) == (surface == [[None] * 3] * 3)
