"""`report.html` in a real browser: quiet, complete, and showing the numbers of `report.json`."""

import json
import re

import pytest

from browser import browser
from compressor.cli import run

pytestmark = pytest.mark.slow

# Every cell that carries a number: its table, row and column, what it shows and what it carries.
CELLS = """
return [...document.querySelectorAll("td[data-value]")].map((cell) => {
  const table = cell.closest("table"), row = cell.parentElement;
  const place = [...row.children].indexOf(cell);
  let above = table;
  while (!(above.previousElementSibling?.matches("h2") ?? false)) {
    above = above.previousElementSibling ?? above.parentElement;
  }
  return {
    part: above.previousElementSibling.textContent,
    row: [...row.children].slice(0, place).map((each) => each.firstChild?.textContent ?? ""),
    column: table.tHead.rows[0].cells[place].textContent,
    shown: cell.firstChild.textContent,
    exact: Number(cell.dataset.value),
  };
});
"""
CUT = """
return [...document.querySelectorAll("svg text")].filter((text) => {
  const own = text.getBoundingClientRect(), all = text.closest("svg").getBoundingClientRect();
  return own.left < all.left - 2 || own.right > all.right + 2 || own.top < all.top - 2
    || own.bottom > all.bottom + 2;
}).map((text) => text.textContent);
"""
COPY = """
const button = document.querySelector("button");
button.click();
return new Promise((resolve) => setTimeout(() => resolve(button.textContent), 500));
"""


@pytest.fixture(scope="module")
def made(workshop, tmp_path_factory):
    """A report on four models, each made by another verb."""
    folder = tmp_path_factory.mktemp("page")
    teacher, data = workshop / "teacher", workshop / "data"
    for words in (
        f"prune {teacher} --method magnitude --sparsity 0.5 -o {folder}/pruned",
        f"quantize {folder}/pruned -o {folder}/int8",
        f"export {folder}/int8 -o {folder}/onnx",
        f"benchmark {folder}/pruned {folder}/int8 {folder}/onnx --baseline {teacher} --data {data} "
        f"--shapes 1x8,2x16 --rounds 3 --starts 1 --max-drop 90 -o {folder}/report",
    ):
        assert run(words.split()) == 0
    return folder / "report"


@pytest.fixture
def window(tmp_path):
    with browser(tmp_path) as found:
        yield found


def expected_cells(report):
    """(part of the page, row, column) -> the number of the report that belongs there."""
    cells = {}
    for model in report["models"]:
        size, ratio, name = model["size"], model["compression_ratio"], model["name"]
        of_model = {
            "Accuracy %": model["accuracy"]["value"], "Drop, points": model["drop"],
            "Retention": model["retention"], "Disk": size["disk"], "Smaller": ratio["disk"],
            "ms at 1x8": model["latency"][0]["p50_ms"],
            "Faster, mean of 2 shapes": model["speedup"],
            "Compression to accuracy": model["compression_to_accuracy"],
        }  # fmt: skip
        of_size = {"Disk": "disk", "Weights": "weights", "Parameters": "parameters"}
        cells |= {("Models", name, column): value for column, value in of_model.items()}
        cells |= {("Size", name, column): size[key] for column, key in of_size.items()}
        for number, row in enumerate(model["latency"]):
            place = f"{name} {row['batch']} {row['length']}"
            faster = model["speedup_by_shape"][number]["speedup"]
            cells[("Latency", place, "Median ms")] = row["p50_ms"]
            cells[("Latency", place, "95th percentile ms")] = row["p95_ms"]
            cells[("Latency", place, "Faster")] = faster
        for row in model["layers"]:
            place = f"{name} {row['part']}"
            cells[("Layers", place, "Zeros")] = row["sparsity"]
            cells[("Layers", place, "Bits of a weight")] = row["bits_per_weight"]
    for training in report["training"]:
        place = f"{training['verb']} {training['method']}"
        cells[("Training", place, "First loss")] = training["loss"][0]["value"]
        cells[("Training", place, "Kept at")] = training["kept_step"]
    return cells


def is_rounding(shown, exact):
    """Whether a text is that number with fewer digits, as it is, in per cent or in kB, MB, GB."""
    digits = re.match(r"[-+\u2212]?[\d,]+(?:\.(\d+))?", shown)
    value = float(digits[0].replace(",", "").replace("\u2212", "-"))
    half = 0.5 * 10 ** -len(digits[1] or "") * (1 + 1e-6)
    return any(abs(exact * scale - value) <= half for scale in (1, 100, 1e-3, 1e-6, 1e-9))


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {number for each in value for number in numbers_in(each)}
    return {value} if isinstance(value, (int, float)) else set()


def test_the_page_is_quiet_and_shows_the_numbers_of_the_report(made, window, tmp_path):
    report = json.loads((made / "report.json").read_text())
    address = window.open(made / "report.html")
    assert json.loads(window.run("return document.getElementById('report').textContent")) == report
    cells, found, every = window.run(CELLS), {}, numbers_in(report)
    for cell in cells:
        assert cell["exact"] in every, cell
        assert is_rounding(cell["shown"], cell["exact"]), cell
        for words in (cell["row"][:1], cell["row"][:2], cell["row"][:3]):
            found[(cell["part"], " ".join(words), cell["column"])] = cell["exact"]
    wanted = expected_cells(report)
    assert len(wanted) > 60
    assert {place: found.get(place) for place in wanted} == wanted
    assert window.run("return document.querySelectorAll('svg').length") == 6
    assert window.run(COPY) in ("Copied", "Selected")
    assert window.console() == []
    asked = [each for each in window.requests() if not each.startswith("data:")]
    assert set(asked) == {address}


def test_nothing_is_cut_or_too_wide_in_any_window_light_or_dark(made, window, tmp_path):
    window.open(made / "report.html")
    papers = {}
    for scheme in ("light", "dark"):
        for width in (1200, 420):
            window.set_up(width=width, scheme=scheme)
            assert window.run("return document.documentElement.scrollWidth") <= width
            assert window.run(CUT) == []
            assert window.screenshot(tmp_path / f"{scheme}-{width}.png").startswith(b"\x89PNG")
        papers[scheme] = window.run("return getComputedStyle(document.body).backgroundColor")
    assert papers["light"] != papers["dark"]
    assert window.console() == []
