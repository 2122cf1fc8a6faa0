"""The shapes of `report.json` and `compare.json`, checked when one is made and when one is read."""

from __future__ import annotations

from typing import Any

from compressor.errors import InputError
from compressor.measure.shape import check_shape

SCHEMA = 1

_NUMBER_OR_NULL = (float, None)

_ACCURACY = {
    "metric": str,
    "value": _NUMBER_OR_NULL,
    "n": int,
    "low": _NUMBER_OR_NULL,
    "high": _NUMBER_OR_NULL,
    "tokens?": (int, None),  # of a language model those that were scored
}

_PAIRED = {
    "difference": _NUMBER_OR_NULL,
    "low": _NUMBER_OR_NULL,
    "high": _NUMBER_OR_NULL,
    "agreement": _NUMBER_OR_NULL,
    "mcnemar": _NUMBER_OR_NULL,
}

# Ways of counting bytes, and what a table calls them. The last three are shares of the baseline's
# matrices as they are stored: a dense model has no positions to pay for.
SIZES = {
    "disk": "Disk",
    "zstd": "Packed by zstd",
    "weights": "Weights",
    "nonzero": "Non-zero weights",
    "encoder_weights": "Weights, encoder only",
    "encoder_nonzero": "Non-zero, encoder only",
    "matrices": "Encoder's matrices",
    "matrices_nonzero": "their non-zeros",
    "matrices_bitmask": "with a bit mask",
    "matrices_index": "with 16-bit positions",
}

# A layer, several neighbouring ones of a deep model, or everything outside them.
_LAYER = {
    "part": str,
    "layers": ([int], None),  # numbers of the first and the last
    "parameters": int,
    "sparsity": float,  # share of zeros in the matrices, 0 to 1
    "bits": [int],  # every width that occurs, biases included
    "bits_per_weight": _NUMBER_OR_NULL,  # mean over the matrices
    "bytes": int,
}

_POINT = {"step": int, "value": float}

# A training that models descend from, by what its folder kept of it.
_TRAINING = {
    "verb": str,
    "method": str,
    "models": [str],  # whose lineage it stands in
    "loss": [_POINT],  # of training batches
    "metric": (str, None),  # what weights were chosen by
    "scores": [_POINT],  # that metric on validation rows
    "kept_step": (int, None),  # where the weights that were kept were reached
}

# How latency grows with batch and length, see `scaling.scaling_of`.
_SCALING = {
    "fit": dict.fromkeys(("fixed_ms", "token_ms", "pair_ms", "error"), float),
    "rows": [
        {
            **dict.fromkeys(("batch", "length"), int),
            **dict.fromkeys(("p50_ms", "products_ms", "share"), float),
        }
    ],
}

_LOSSES = [_NUMBER_OR_NULL]
# The loss around the weights.
_LANDSCAPE = {
    "rows": int,
    "places": [float],  # along each direction
    "lines": [_LOSSES],  # one for each direction
    "surface": [_LOSSES],
    "between": ({"places": [float], "losses": _LOSSES}, None),
    "rho": float,
    "hessian_rows": int,  # of those, what eigenvalue and trace are about
    **dict.fromkeys(
        ("worst", "adaptive_worst", "average", "eigenvalue", "trace", "seconds"), _NUMBER_OR_NULL
    ),
}

_MODEL = {
    "name": str,
    "path": str,
    "runtime": {"torch", "onnxruntime"},
    "device?": str,
    "precision?": str,
    "stored_in?": str,
    "steps?": [{}],  # of the lineage
    "accuracy": (_ACCURACY, None),
    "paired": (_PAIRED, None),
    "size": ({**dict.fromkeys(SIZES, (int, None)), "parameters": (int, None)}, None),
    "latency": [
        {
            **dict.fromkeys(("batch", "length"), int),
            **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "per_second"), float),
            "starts_ms": [[float]],
        }
    ],
    "compression_ratio": dict.fromkeys(SIZES, _NUMBER_OR_NULL),
    "open_ms?": _NUMBER_OR_NULL,
    "first_ms?": _NUMBER_OR_NULL,
    "answer_ms?": _NUMBER_OR_NULL,
    "peak_memory_bytes?": (int, None),
    "peak_gpu_bytes?": (int, None),
    "scaling?": _SCALING,
    "landscape?": (_LANDSCAPE, None),
    "speedup": _NUMBER_OR_NULL,
    "speedup_low": _NUMBER_OR_NULL,
    "speedup_high": _NUMBER_OR_NULL,
    "speedup_by_shape": [
        {
            "batch": int,
            "length": int,
            "speedup": float,
            "low": _NUMBER_OR_NULL,
            "high": _NUMBER_OR_NULL,
        }
    ],
    "retention": _NUMBER_OR_NULL,
    "drop": _NUMBER_OR_NULL,
    "compression_to_accuracy": _NUMBER_OR_NULL,
    "pareto": bool,
    "layers?": [_LAYER],
}

_REPORT = {
    "schema": int,
    "command": str,
    "seed": int,
    "machine": {"cpu": str, "cores": int, "threads": int},
    "task": ({"name": str}, None),
    "baseline": str,
    "drop_unit": (str, None),
    "pareto_axes": [{"accuracy", "latency", "disk"}],
    "summary": str,
    "findings": [str],
    "models": [_MODEL],
    "training?": [_TRAINING],
    "inputs?": {},  # what --reuse knows the report again by
    "gates": [
        {"gate": str, "model": str, "limit": float, "value": _NUMBER_OR_NULL, "passed": bool}
    ],
}

COMPARISON_SCHEMA = 1

# What a comparison shows of a model, and what its sentences call it.
QUANTITIES = {
    "accuracy": "accuracies",
    "drop": "drops",
    "disk": "sizes on disk",
    "compression_ratio": "compression ratios",
    "speedup": "speed-ups",
    "latency": "milliseconds",
}

_COMPARED_MODEL = {
    "name": str,
    "weights": (str, None),  # hash
    "runtime": {"torch", "onnxruntime"},
    "accuracy": (_ACCURACY, None),
    "drop": _NUMBER_OR_NULL,
    "disk": (int, None),
    "compression_ratio": _NUMBER_OR_NULL,  # of disk, to the report's own baseline, as `speedup`
    "speedup": _NUMBER_OR_NULL,
    "speedup_low": _NUMBER_OR_NULL,
    "speedup_high": _NUMBER_OR_NULL,
    "p50_ms": _NUMBER_OR_NULL,  # at the report's first shape
}

_COMPARISON = {
    "schema": int,
    "command": str,
    "inputs": {"reports": [{"name": str, "hash": str}]},
    "comparable": [set(QUANTITIES)],  # between reports
    "notes": [str],  # what differs, and what may therefore not be compared
    "same_weights": [
        {
            "weights": str,
            "models": [
                {"report": str, "name": str, "metric": (str, None), "value": _NUMBER_OR_NULL}
            ],
            "agree": (bool, None),
        }
    ],
    "reports": [
        {
            "name": str,
            "command": str,
            "machine": {"cpu": str, "cores": int, "threads": int},
            "metric": (str, None),
            "drop_unit": (str, None),
            "data": (str, None),
            "data_hash": (str, None),
            "split": (str, None),
            "columns": (str, None),
            "max_length": (int, None),
            "tokens": [int],  # scored, each number once; none but of language models
            "shapes": [[int]],  # batch and length
            "baseline": str,
            "findings": [str],
            "models": [_COMPARED_MODEL],
        }
    ],
}


def validate_report(report: Any, *, where: str = "report.json") -> None:
    """Check that `report` has the shape of schema 1 and that its names belong together.

    Args:
        report: the parsed JSON.
        where: how messages call it, a file name as a rule.

    Raises:
        InputError: the first key that is missing or holds the wrong kind of value.
    """
    if isinstance(report, dict) and report.get("schema", SCHEMA) != SCHEMA:
        raise InputError(
            f"report schema {report['schema']!r}, expected {SCHEMA}",
            hint="make it again with this version's `compressor benchmark`",
            where=where,
        )
    check_shape(report, _REPORT, where)
    _check_names(report, where)


def validate_comparison(comparison: Any, *, where: str = "compare.json") -> None:
    """Check that `comparison` has the shape of `compare.json`, schema 1.

    Args:
        comparison: the parsed JSON.
        where: how messages call it, a file name as a rule.

    Raises:
        InputError: the first key that is missing or holds the wrong kind of value.
    """
    check_shape(comparison, _COMPARISON, where)
    if comparison["schema"] != COMPARISON_SCHEMA:
        raise InputError(
            f"comparison schema {comparison['schema']}, expected {COMPARISON_SCHEMA}",
            hint="make it again with this version's `compressor compare`",
            where=where,
        )
    for entry in comparison["reports"]:
        _check_names(entry, where)


def _check_names(report: Any, where: str) -> None:
    names = [model["name"] for model in report["models"]]
    if len(set(names)) != len(names):
        raise InputError(f"two models share a name: {', '.join(names)}", where=where)
    if report["baseline"] not in names:
        raise InputError(
            f"baseline {report['baseline']!r} is not among the models: {', '.join(names)}",
            where=where,
        )
