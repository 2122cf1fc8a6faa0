from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from compressor.measure.heat_map import DEEP, heat_maps


def texts(svg):
    return ["".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter("text")]


def strengths(svg):
    """How strong the colour of each cell is, 0 to 1, in the order of the rows."""
    cells = re.findall(r'style="fill: (none|var\(--heat[^"]*); stroke: var\(--rule', svg)
    found = [re.search(r"fill-opacity: ([\d.]+)", cell) for cell in cells]
    return [
        float(each[1]) if each else float(cell != "none")
        for cell, each in zip(cells, found, strict=True)
    ]


def with_layers(report, rows):
    for model in report["models"]:
        model.pop("layers", None)
    report["models"][0]["layers"] = rows
    return report


def test_a_line_for_each_model_and_a_number_in_each_cell(report):
    zeros, bits = (texts(svg) for svg, *_ in heat_maps(report))
    for found in (zeros, bits):
        assert {"teacher", "student", "student-int8", "worse", "outside", "0", "5"} <= set(found)
        assert "6" not in found
    assert zeros.count("90") == 6
    assert bits.count("8") == 3
    assert bits.count("32") == 4 + 6 + 3 + 6


def test_more_zeros_and_fewer_bits_are_stronger(report, make):
    rows = [
        {**make.layers(1, share, bits)[1], "layers": [index, index]}
        for index, (share, bits) in enumerate(((0.0, 32.0), (0.25, 16.0), (1.0, 2.0), (0.5, 8.0)))
    ]
    zeros, bits = (svg for svg, *_ in heat_maps(with_layers(report, rows)))
    assert strengths(zeros) == [0, 0.25, 1, 0.5]
    assert strengths(bits) == [0, 0.25, 1, 0.5]


def test_without_layers_nothing_is_drawn_and_without_bits_no_cell(report, make):
    rows = make.layers(2, 0.5, 8.0)
    rows[0]["bits_per_weight"] = None
    zeros, bits = (svg for svg, *_ in heat_maps(with_layers(report, rows)))
    assert len(strengths(zeros)) == 3
    assert len(strengths(bits)) == 2
    assert heat_maps(with_layers(report, [])) == []


def test_deep_models_take_the_width_of_the_page_and_stay_legible(report, make):
    assert {kind for *_, kind in heat_maps(report)} == {""}
    deep = make.layers(DEEP + 1, 0.5, 8.0)
    assert {kind for *_, kind in heat_maps(with_layers(report, deep))} == {"bars"}
    rows = make.layers(60, 0.5, 8.0)
    for row in rows[1:]:  # a model of 240 layers
        row["layers"] = [4 * row["layers"][0], 4 * row["layers"][0] + 3]
    svg, *_ = heat_maps(with_layers(report, rows))[0]
    assert len(strengths(svg)) == 61
    assert len(texts(svg)) < 40  # numbers that would not fit are left out


@pytest.mark.parametrize("bits", [0.0, 64.0, 1.0])
def test_any_number_of_bits_has_a_colour(report, make, bits):
    svg = heat_maps(with_layers(report, make.layers(1, 2.0, bits)))[1][0]
    assert all(0 <= strength <= 1 for strength in strengths(svg))


def test_it_is_the_same_twice_and_shares_no_id(report):
    first, second = heat_maps(report)
    assert [first, second] == heat_maps(report)
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg, *_ in (first, second)]
    assert not ids[0] & ids[1]
