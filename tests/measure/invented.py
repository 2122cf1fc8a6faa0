"""Measurements as the benchmark hands them over, invented but of a plausible size."""

from __future__ import annotations

from compressor.measure.report import build_report

MACHINE = {
    "cpu": "Example CPU",
    "cores": 8,
    "cores_allowed": 8,
    "threads": 2,
    "features": ["avx2", "avx512_vnni"],
    "memory_bytes": 16_000_000_000,
    "load_average": {"before": [0.1, 0.2, 0.2], "after": [1.9, 0.8, 0.4]},
    "os": "Linux 6.1",
    "architecture": "x86_64",
    "python": "3.12.1",
    "versions": {"torch": "2.13.0", "onnxruntime": "1.32.0"},
}

SHAPES = ((1, 32), (1, 128), (8, 32))


def step(verb: str, method: str = "", command: str = "") -> dict:
    return {"verb": verb, "method": method, "command": command or f"compressor {verb} m"}


def latency(p50: float, spread: float = 1.1) -> list[dict]:
    """Rows whose longer and larger shapes take three and six times as long."""
    return [
        {
            "batch": batch,
            "length": length,
            "p50_ms": p50 * factor,
            "p95_ms": p50 * factor * spread,
            "p99_ms": p50 * factor * spread,
            "per_second": batch / (p50 * factor) * 1000,
            "starts_ms": [[p50 * factor]],
        }
        for (batch, length), factor in zip(SHAPES, (1.0, 3.0, 6.0), strict=True)
    ]


def accuracy(value: float, metric: str = "accuracy", **more) -> dict:
    width = 0.02
    return {
        "metric": metric,
        "value": value,
        "n": 872,
        "low": value - width,
        "high": value + width,
        "all": {metric: {"value": value, "low": value - width, "high": value + width}},
        **more,
    }


def size(disk: int, nonzero: int | None = None) -> dict:
    return {
        "disk": disk,
        "zstd": disk // 2,
        "weights": disk - 1000,
        "nonzero": nonzero or disk - 1000,
        "encoder_weights": disk // 2,
        "encoder_nonzero": disk // 2,
        "matrices": disk // 2,
        "matrices_nonzero": disk // 2,
        "matrices_bitmask": disk,
        "matrices_index": disk + disk // 2,
        "parameters": disk // 4,
    }


def measured(name: str, disk: int, p50: float, value: float | None = None, **more) -> dict:
    return {
        "name": name,
        "path": f"runs/{name}",
        "runtime": "torch",
        "accuracy": None if value is None else accuracy(value),
        "size": size(disk),
        "latency": latency(p50),
        **more,
    }


def layers(depth: int, sparsity: float, bits: float) -> list[dict]:
    """A row for each layer, with zeros, and one for the rest, without."""
    places = [None, *([index, index] for index in range(depth))]
    return [
        {
            "part": "outside the layers" if place is None else f"layer {place[0]}",
            "layers": place,
            "parameters": 7_000_000,
            "sparsity": sparsity if place else 0.0,
            "bits": [int(bits), 32],
            "bits_per_weight": bits if place else 32.0,
            "bytes": 7_000_000 * int(bits) // 8,
        }
        for place in places
    ]


def training(verb: str, method: str, models: list[str], metric: str = "accuracy") -> dict:
    """A run of 40 steps with four evaluations, of which the third is kept."""
    return {
        "verb": verb,
        "method": method,
        "models": models,
        "loss": [{"step": step, "value": 1 / step} for step in range(1, 41)],
        "metric": metric,
        "scores": [{"step": step, "value": 0.8 + step / 400} for step in (10, 20, 30, 40)],
        "kept_step": 30,
    }


def four_models() -> list[dict]:
    tuned, distilled = step("finetune"), step("distill", "soft_labels")
    return [
        measured("teacher", 90_000_000, 12.0, 0.92, steps=[tuned], tokenise_ms=0.2),
        measured("student", 45_000_000, 6.0, 0.91, steps=[tuned, distilled]),
        measured(
            "student-int8",
            9_000_000,
            3.0,
            0.88,
            steps=[tuned, distilled, step("quantize", "dynamic")],
            runtime="onnxruntime",
        ),
        measured("worse", 50_000_000, 8.0, 0.90, steps=[tuned, step("prune", "magnitude")]),
    ]


def four_reported() -> dict:
    task = {"name": "text-classification", "data": "sst2", "split": "validation"}
    models = four_models()
    for model, (depth, sparsity, bits) in zip(
        models, ((6, 0.0, 32.0), (3, 0.0, 32.0), (3, 0.0, 8.0), (6, 0.9, 32.0)), strict=True
    ):
        model["layers"] = layers(depth, sparsity, bits)
    report = build_report(MACHINE, task, "teacher", models, "compressor benchmark a b", 0)
    report["training"] = [
        training("finetune", "task", [model["name"] for model in models]),
        training("distill", "soft_labels", ["student", "student-int8"], "loss"),
    ]
    return report


def stored(models: list[dict] | None = None, **changes) -> dict:
    """A report as `benchmark` stores it: with the hashes of its rows and of its models' weights.

    Args:
        models: the first is the baseline; `four_models` if None.
        changes: other threads or cpu, weights by name, or facts of the task.
    """
    models = models or four_models()
    weights = {m["name"]: f"sha256:{m['name']:0>12}" for m in models} | changes.pop("weights", {})
    machine = {**MACHINE, **{k: changes.pop(k) for k in ("cpu", "threads") if k in changes}}
    task = {
        "name": "text-classification",
        "data": "sst2",
        "data_hash": "sha256:5512000000",
        "split": "validation",
        "columns": {"inputs": ["sentence"], "label": "label"},
        "max_length": 128,
        **changes,
    }
    command = f"compressor benchmark {' '.join(m['name'] for m in models)} --data {task['data']}"
    report = build_report(machine, task, models[0]["name"], models, command, 0)
    report["inputs"] = {"models": weights, "data": task["data_hash"], "options": {}, "seed": 0}
    return report
