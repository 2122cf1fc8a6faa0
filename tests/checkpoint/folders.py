"""Tiny checkpoint folders made with numpy alone, and ways to break them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HIDDEN, HEADS, FFN, WORDS, POSITIONS, LAYERS = 8, 2, 16, 20, 12, 2
LABELS = {"0": "negative", "1": "positive"}
LINEARS = {
    "attention.self.query": (HIDDEN, HIDDEN),
    "attention.self.key": (HIDDEN, HIDDEN),
    "attention.self.value": (HIDDEN, HIDDEN),
    "attention.output.dense": (HIDDEN, HIDDEN),
    "intermediate.dense": (FFN, HIDDEN),
    "output.dense": (HIDDEN, FFN),
}


def config(**changes) -> dict:
    made = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FFN,
        "vocab_size": WORDS,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "id2label": LABELS,
    }
    return {**made, **changes}


def tensors(layers: int = LAYERS, labels: int = 2) -> dict[str, np.ndarray]:
    """The tensors of a BERT classifier; no value is zero."""
    draw = np.random.default_rng(0)
    shapes = {
        "bert.embeddings.word_embeddings.weight": (WORDS, HIDDEN),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "bert.embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "bert.pooler.dense.weight": (HIDDEN, HIDDEN),
        "bert.pooler.dense.bias": (HIDDEN,),
        "classifier.weight": (labels, HIDDEN),
        "classifier.bias": (labels,),
    }
    for index in range(layers):
        for name, shape in LINEARS.items():
            shapes[f"bert.encoder.layer.{index}.{name}.weight"] = shape
            shapes[f"bert.encoder.layer.{index}.{name}.bias"] = shape[:1]
    return {
        name: (draw.uniform(0.5, 1.0, shape) * draw.choice([-1, 1], shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def put_json(path: Path, value) -> None:
    path.write_text(json.dumps(value))


def get_json(path: Path):
    return json.loads(path.read_text())


def change_json(path: Path, **changes) -> None:
    put_json(path, {**get_json(path), **changes})


def make(folder: Path, *, values: dict[str, np.ndarray] | None = None, **changes) -> Path:
    """A whole folder: config, weights, tokenizer. `changes` go into the config."""
    folder.mkdir(parents=True, exist_ok=True)
    put_json(folder / "config.json", config(**changes))
    save_file(tensors() if values is None else values, folder / "model.safetensors")
    put_json(folder / "tokenizer.json", {"version": "1.0", "model": {"type": "WordPiece"}})
    return folder


def make_sharded(folder: Path) -> Path:
    """The same checkpoint in two shards with an index."""
    make(folder)
    (folder / "model.safetensors").unlink()
    every = tensors()
    names = sorted(every)
    shards = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for file, held in shards.items():
        save_file({name: every[name] for name in held}, folder / file)
    index = {name: file for file, held in shards.items() for name in held}
    put_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    return folder


def edit(folder: Path, **changes: np.ndarray | None) -> None:
    """Replace tensors (dots written as __), or remove them with None."""
    every = tensors()
    for name, value in changes.items():
        every[name.replace("__", ".")] = value
    save_file({k: v for k, v in every.items() if v is not None}, folder / "model.safetensors")


def write_raw(file: Path, header: bytes | dict, data: bytes = b"", length: int | None = None):
    """A safetensors file with any header, length and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
    "format": "int-quantized",
    "ignore": ["classifier", "bert.pooler.dense"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8}}},
}


def make_int8(folder: Path, **quantization) -> Path:
    """The same checkpoint with the layers' matrices as int8 and a scale per row."""
    values = tensors()
    for name in list(values):
        if ".layer." in name and name.endswith(".weight"):
            scale = np.abs(values[name]).max(axis=1, keepdims=True) / 127.5
            values[f"{name}_scale"] = scale.astype(np.float32)
            values[name] = np.round(values[name] / scale).clip(-128, 127).astype(np.int8)
    return make(folder, values=values, quantization_config={**QUANTIZATION, **quantization})


def make_onnx(folder: Path, graph=None, **changes) -> Path:
    """An ONNX folder: y = x @ weight, named as an exporter names it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    put_json(folder / "config.json", config(**changes))
    put_json(folder / "tokenizer.json", {})
    if graph is None:
        weight = tensors()["bert.encoder.layer.1.intermediate.dense.weight"].T
        name = "bert.encoder.layer.1.intermediate.dense.weight"
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", name], ["y"])],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", HIDDEN])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", FFN])],
            [numpy_helper.from_array(weight, name)],
        )
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    return folder
