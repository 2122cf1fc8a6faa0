from __future__ import annotations

import copy
from pathlib import Path

import pytest

from compressor.errors import InputError
from compressor.measure import schema
from compressor.measure.gates import Gates, check
from compressor.measure.schema import validate_report


def test_a_built_report_is_valid(report):
    validate_report(report)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("models", 1, "latency", 0, "p50_ms"),
            "3",
            r"models\[1\].latency\[0\].p50_ms: expected a n",
        ),
        (("models", 0, "runtime"), "tensorflow", r"runtime: expected onnxruntime or torch"),
        (("models", 0, "pareto"), 1, r"pareto: expected true or false"),
        (("models", 0, "accuracy", "n"), True, r"accuracy.n: expected a whole number"),
        (("models", 0, "size", "disk"), float("nan"), r"size.disk: expected a whole number"),
        (("models", 0, "speedup"), float("inf"), r"speedup: expected a number"),
        (("models",), {}, "models: expected a list"),
        (("machine",), None, "machine: expected an object"),
        (("models", 1, "layers", 0, "sparsity"), "0", r"layers\[0\].sparsity: expected a number"),
        (("models", 1, "layers"), None, r"models\[1\].layers: expected a list"),
        (
            ("training", 0, "loss", 2, "step"),
            1.5,
            r"training\[0\].loss\[2\].step: expected a whole",
        ),
        (("findings",), [3], r"findings\[0\]: expected text"),
        (("inputs",), [], "inputs: expected an object"),
        (("models", 0, "steps"), "none", r"models\[0\].steps: expected a list"),
        (("models", 0, "device"), 3, r"models\[0\].device: expected text"),
        (("models", 0, "precision"), None, r"models\[0\].precision: expected text"),
        (("models", 0, "peak_gpu_bytes"), 1.5, r"peak_gpu_bytes: expected a whole number"),
        (("models", 0, "scaling"), {"rows": []}, r"models\[0\].scaling.fit is missing"),
        (("models", 0, "landscape"), {}, r"models\[0\].landscape.rows is missing"),
        (("schema",), 2, "schema 2, expected 1"),
        (("baseline",), "nobody", "'nobody' is not among the models"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(report, path, value, words):
    broken = copy.deepcopy(report)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match=words) as caught:
        validate_report(broken, where="old.json")
    assert caught.value.where == "old.json"


@pytest.mark.parametrize("key", ["schema", "machine", "baseline", "models", "gates", "summary"])
def test_a_missing_key_is_named(report, key):
    del report[key]
    with pytest.raises(InputError, match=f"{key} is missing"):
        validate_report(report)


def test_a_missing_key_inside_a_model_is_named_by_its_place(report):
    del report["models"][2]["size"]["weights"]
    with pytest.raises(InputError, match=r"models\[2\].size.weights is missing"):
        validate_report(report)


def test_layers_and_trainings_may_be_absent_and_are_whole_where_they_are_not(report):
    del report["models"][0]["layers"], report["training"]
    validate_report(report)
    del report["models"][1]["layers"][3]["bits_per_weight"]
    with pytest.raises(InputError, match=r"models\[1\].layers\[3\].bits_per_weight is missing"):
        validate_report(report)


def test_two_models_of_one_name_are_refused(report):
    report["models"][1]["name"] = "teacher"
    with pytest.raises(InputError, match="share a name"):
        validate_report(report)


@pytest.mark.parametrize("value", [None, [], "report", 3])
def test_anything_else_is_no_report(value):
    with pytest.raises(InputError, match="the report: expected an object"):
        validate_report(value)


def keys_of(specification):
    """Every key of a specification, at any depth."""
    if isinstance(specification, dict):
        for key, part in specification.items():
            yield key.removesuffix("?")
            yield from keys_of(part)
    elif isinstance(specification, list | tuple):
        for part in specification:
            yield from keys_of(part)


def test_the_documentation_names_gates_as_the_file_does(report):
    text = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    (judged,) = check(report, Gates(max_drop=3), ["student"])
    assert f"`{judged['gate']}`" in text


def test_the_documentation_names_every_key():
    text = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    missing = {key for key in keys_of(schema._REPORT) if f"`{key}`" not in text}
    assert not missing
