from __future__ import annotations

import math

from compressor.measure.report import build_report
from compressor.measure.summary import best_candidate


def findings(machine, models, **task):
    task = {"name": "text-classification", **task}
    return build_report(machine, task, models[0]["name"], models, "", 0)["findings"]


def test_a_clean_run_has_nothing_to_say(machine, make):
    models = [make.measured("a", 90, 9.0, 0.9), make.measured("b", 50, 5.0, 0.9)]
    assert findings(machine, models) == []


def test_a_dead_model_comes_first(machine, make, models):
    dead = make.measured("dead", 10, 1.0, math.nan)
    dead["accuracy"]["not_finite"] = 872
    first = findings(machine, [*models, dead])[0]
    assert first.startswith("dead gave NaN or infinite outputs for 872 of 872 rows")


def test_a_model_that_says_one_thing_is_named_with_the_label(machine, make):
    constant = make.measured("c", 10, 1.0, 0.51)
    constant["accuracy"]["predicted"] = [0, 872]
    models = [make.measured("a", 90, 9.0, 0.9), constant]
    assert findings(machine, models, labels=["bad", "good"]) == [
        "c answers 'good' for every one of 872 rows (accuracy 51.0)."
    ]
    assert "'class 1'" in findings(machine, models)[0]
    constant["accuracy"]["predicted"] = [1, 871]
    assert "every one" not in " ".join(findings(machine, models))


def test_zeros_that_save_no_time_are_called_so(machine, make):
    models = [make.measured(name, 90, 9.0, 0.9) for name in "abc"]
    for model in models[1:]:
        model["size"] |= {"matrices": 1000, "matrices_nonzero": 200}
    (sentence,) = findings(machine, models)
    assert sentence.startswith("80% of the encoder's matrices of b and c are zeros: they save disk")
    models[1]["size"]["matrices_nonzero"] = 900
    (sentence,) = findings(machine, models)
    assert sentence.startswith("80% of the encoder's matrices of c are zeros")
    models[2]["size"]["matrices_nonzero"] = 900
    assert findings(machine, models) == []


def test_accuracy_lost_beyond_the_interval_is_named_and_within_it_is_not(machine, make):
    base = make.measured("a", 90, 9.0, 0.9)
    close, far = make.measured("b", 50, 5.0, 0.885), make.measured("c", 40, 4.0, 0.87)
    assert findings(machine, [base, close, far]) == [
        "c loses 3.0 points of accuracy (90.0 to 87.0), more than its 95 % interval "
        "85.0\u201389.0 explains."
    ]


def test_several_losses_share_a_sentence(machine, make):
    models = [make.measured("a", 90, 9.0, 0.9)]
    models += [make.measured(name, 50, 5.0, 0.8) for name in "bc"]
    (sentence,) = findings(machine, models)
    assert sentence == (
        "Points of accuracy lost beyond what the 95 % intervals explain: b 10.0 and c 10.0."
    )


def test_more_perplexity_is_a_loss(machine, make):
    models = [make.measured("a", 90, 9.0), make.measured("b", 50, 5.0)]
    for model, value in zip(models, (10.0, 12.0), strict=True):
        model["accuracy"] = make.accuracy(value, "perplexity")
    assert findings(machine, models) == [
        "b has 20.0 % more perplexity (10.0 to 12.0), more than its 95 % interval "
        "12.0\u201312.0 explains."
    ]


def test_int8_slower_than_the_float_model_it_came_from(machine, make):
    lineage = [make.step("finetune"), make.step("distill", "soft_labels")]
    models = [
        make.measured("teacher", 90, 12.0, 0.9, steps=lineage[:1]),
        make.measured("student", 45, 6.0, 0.9, steps=lineage),
        make.measured("int8", 20, 7.5, 0.9, steps=[*lineage, make.step("quantize", "static")]),
    ]
    # Faster than the baseline, slower than the student.
    assert findings(machine, models) == [
        "int8, int8, is 1.25x slower than student, the float model it was made from."
    ]


def test_an_int8_export_is_int8_and_a_float_one_is_not(machine, make):
    lineage = [make.step("finetune"), make.step("distill", "soft_labels")]
    models = [
        make.measured("teacher", 90, 12.0, 0.9, steps=lineage[:1]),
        make.measured("student", 45, 6.0, 0.9, steps=lineage),
        make.measured("out", 20, 7.5, 0.9),
    ]
    for weights, expected in (("fp32", []), ("int8", ["out, int8, is 1.25x slower than student"])):
        export = {**make.step("export", "onnx"), "options": {"weights": weights}}
        models[2]["steps"] = [*lineage, export]
        found = findings(machine, models)
        assert [sentence.split(", the float")[0] for sentence in found] == expected
    models[2]["precision"] = "int8 (simulated)"
    assert findings(machine, models)[0].startswith("out, int8 (simulated), is 1.25x slower")


def test_an_int8_graph_slower_than_the_float_graph_beside_it(machine, make):
    tuned = {**make.step("finetune"), "inputs": {"model": {"weights": "sha256:1"}}}
    float_, int8 = ({**make.step("export"), "options": {"weights": w}} for w in ("fp32", "int8"))
    quantized = make.step("quantize", "dynamic")

    def found(*lineages):
        teacher, *graphs = (
            make.measured(name, disk, ms, 0.9, steps=steps, runtime=runtime)
            for (name, disk, ms, runtime), steps in zip(
                (
                    ("teacher", 90, 12.0, "torch"),
                    ("graph-fp32", 90, 4.0, "onnxruntime"),
                    ("graph-int8", 24, 6.0, "onnxruntime"),
                ),
                lineages,
                strict=True,
            )
        )
        return findings(machine, [teacher, *graphs])

    said = [
        "graph-int8, int8, is 1.50x slower than graph-fp32, the float graph of what it was made "
        "from."
    ]
    assert found([tuned], [tuned, float_], [tuned, int8]) == said
    assert found([tuned], [tuned, float_], [tuned, quantized, int8]) == said
    # Of a checkpoint without a lineage the weights tell which it is.
    for step, weights in ((float_, "sha256:1"), (int8, "sha256:1")):
        step["inputs"] = {"model": {"weights": weights}}
    assert found([], [float_], [int8]) == said
    int8["inputs"] = {"model": {"weights": "sha256:2"}}
    assert found([], [float_], [int8]) == []


def test_what_the_starts_do_not_tell_apart_is_not_slower(machine, make):
    models = [make.measured("a", 90, 9.0), make.measured("b", 50, 9.6)]
    for model, starts in zip(models, ([9.0, 9.0, 9.0], [7.0, 9.6, 12.2]), strict=True):
        for row, factor in zip(model["latency"], (1, 3, 6), strict=True):
            row["starts_ms"] = [[ms * factor] for ms in starts]
    assert findings(machine, models) == []
    for row, factor in zip(models[1]["latency"], (1, 3, 6), strict=True):
        row["starts_ms"] = [[ms * factor] for ms in (9.5, 9.6, 9.7)]
    assert findings(machine, models) == ["b is 1.07x slower than a, the baseline."]


def test_slower_than_the_baseline(machine, make):
    models = [make.measured("a", 90, 9.0), make.measured("b", 50, 10.0)]
    assert findings(machine, models) == ["b is 1.11x slower than a, the baseline."]
    models[1]["latency"] = make.latency(9.1)
    assert findings(machine, models) == []


def test_a_noisy_machine_is_reported_by_spread_and_by_load(machine, make):
    steady = [make.measured("a", 90, 9.0)]
    restless = [{**steady[0], "latency": make.latency(9.0, spread=2.0)}]
    (sentence,) = findings(machine, restless)
    assert sentence.startswith("The machine was noisy: 95th percentiles lie 2.00x above")
    busy = {**machine, "load_average": {"before": [9.3, 1.0, 1.0], "after": None}}
    (sentence,) = findings(busy, steady)
    assert "load average reached 9.3 on 8 cores" in sentence


def test_perplexities_over_other_tokens_are_named(machine, make):
    models = [make.measured(name, 90, 9.0) for name in "abc"]
    for model, tokens in zip(models, (1000, 1000, 4000), strict=True):
        model["accuracy"] = make.accuracy(10.0, "perplexity", tokens=tokens)
    assert findings(machine, models) == [
        "The perplexity of c (4,000 tokens) cannot be compared with that of a (1,000 tokens): "
        "another tokenizer cuts the same rows into other tokens."
    ]
    report = build_report(machine, {"name": "causal-lm"}, "a", models, "", 0)
    assert best_candidate(report)["name"] == "b"
