"""What can be wrong with inputs and command lines, and how each fault must be answered.

The numbers are those of the fault cases that the project's reliability rules list. A case runs in
a folder of its own that holds `model` (a whole tiny checkpoint) and `data`; its function breaks
something there. `tests/test_faults.py` runs them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from checkpoint import folders
from measure.invented import stored

PRUNE = "prune model --method magnitude -o out"
TRAIN = "finetune model --data data -o out"
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"


@dataclass(frozen=True)
class Fault:
    """One way to be wrong.

    Attributes:
        name: number of the case, then a word or two.
        breaks: makes the fault in the case's folder.
        words: the command line.
        code: the exit code.
        said: what stderr must hold.
        needs_torch: whether only a loaded model shows the fault.
        stdin: what a stage before sends.
    """

    name: str
    breaks: Callable[[Path], object]
    words: str
    code: int
    said: tuple[str, ...]
    needs_torch: bool = False
    stdin: bytes = b""


def nothing(folder: Path) -> None:
    """Nothing is broken but the command line."""


# Ways to break a checkpoint --------------------------------------------------------------------


def config(**changes) -> Callable[[Path], None]:
    """Change config.json; None removes a key."""

    def breaks(folder: Path) -> None:
        path = folder / "model" / "config.json"
        values = {**folders.get_json(path), **changes}
        folders.put_json(path, {k: v for k, v in values.items() if v is not None})

    return breaks


def file(name: str, data: bytes | None, *, to: str = "model") -> Callable[[Path], None]:
    """Replace a file by these bytes; None removes it."""

    def breaks(folder: Path) -> None:
        path = folder / to / name
        path.parent.mkdir(exist_ok=True)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    return breaks


def only(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    """Several faults at once."""

    def breaks(folder: Path) -> None:
        for step in steps:
            step(folder)

    return breaks


def cut(by: int) -> Callable[[Path], None]:
    """Cut bytes off the end of the weights, or add some."""

    def breaks(folder: Path) -> None:
        path = folder / "model" / WEIGHTS
        data = path.read_bytes()
        path.write_bytes(data[:-by] if by > 0 else data + b"\0" * -by)

    return breaks


def header(text: bytes | dict, *, data: bytes = b"", length: int | None = None):
    """Weights with this header."""

    def breaks(folder: Path) -> None:
        folders.write_raw(folder / "model" / WEIGHTS, text, data, length)

    return breaks


def tensors(**changes) -> Callable[[Path], None]:
    """Replace tensors (`__` stands for a dot; functions get the old values), None removes one."""

    def breaks(folder: Path) -> None:
        path = folder / "model" / WEIGHTS
        values = load_file(path)
        for keyword, value in changes.items():
            name = keyword.replace("__", ".")
            values[name] = value(values.get(name)) if callable(value) else value
        save_file({k: v for k, v in values.items() if v is not None}, path)

    return breaks


def with_value(number: float) -> Callable[[np.ndarray], np.ndarray]:
    """The same tensor with one value replaced."""

    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values.flat[3] = number
        return values

    return change


def extra_tensor(folder: Path) -> None:
    """One of three layers has a tensor that the others do not have."""
    values = folders.tensors(layers=3)
    values["bert.encoder.layer.1.extra.weight"] = np.ones((2, 2), np.float32)
    folders.make(folder / "model", values=values, num_hidden_layers=3)


def sharded(folder: Path) -> Path:
    """The checkpoint in two shards."""
    (folder / "model" / WEIGHTS).unlink()
    return folders.make_sharded(folder / "model")


def shard_missing(folder: Path) -> None:
    (sharded(folder) / "model-00002-of-00002.safetensors").unlink()


def shard_outside(folder: Path) -> None:
    path = sharded(folder) / SHARDS
    index = folders.get_json(path)
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = "../data/model.safetensors"
    folders.put_json(path, index)


def only_pickle(folder: Path) -> None:
    (folder / "model" / WEIGHTS).rename(folder / "model" / "pytorch_model.bin")


def recorded(folder: Path, schema: int = 1) -> Path:
    """Give the checkpoint a lineage, then change a file."""
    model = folder / "model"
    folders.put_json(
        model / "compression.json",
        {
            "schema": schema,
            "compressor": "9.9.9",
            "steps": [],
            "files": {"config.json": {"size": 1, "sha256": "0" * 64}},
        },
    )
    return model


def newer(folder: Path) -> None:
    recorded(folder, schema=2)


def int8(folder: Path) -> None:
    """An int8 checkpoint whose lineage knows its parent."""
    folders.make_int8(folder / "int8")
    step = {"verb": "quantize", "inputs": {"model": {"name": "model", "weights": "sha256:0"}}}
    folders.put_json(
        folder / "int8" / "compression.json",
        {"schema": 1, "compressor": "0.1.0", "steps": [step], "files": {}},
    )


# Ways to break data ----------------------------------------------------------------------------


def train(data: bytes | str, name: str = "train.jsonl") -> Callable[[Path], None]:
    """A data folder with this training file alone."""

    def breaks(folder: Path) -> None:
        for path in (folder / "data").iterdir():
            path.unlink()
        path = folder / "data" / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return breaks


def rows(*values: dict) -> str:
    """Rows as JSON Lines, after two good ones."""
    good = ({"text": "a great film", "label": "positive"}, {"text": "bad", "label": "negative"})
    return "".join(json.dumps(row) + "\n" for row in (*good, *values))


def same_rows(folder: Path) -> None:
    (folder / "data" / "validation.jsonl").write_text(rows())
    (folder / "data" / "train.jsonl").write_text(rows({"text": "fine", "label": "positive"}))


def long_rows(folder: Path) -> None:
    row = {"text": "great " * 200, "label": "positive"}
    (folder / "data" / "train.jsonl").write_text(rows(row))


# Ways to break the rest ------------------------------------------------------------------------


def recipe(text: str | bytes) -> Callable[[Path], object]:
    """A recipe file."""
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "recipe.yaml").write_bytes(data)


def made(name: str, *, ours: bool) -> Callable[[Path], None]:
    """A folder in the way of the output."""

    def breaks(folder: Path) -> None:
        (folder / name).mkdir()
        (folder / name / ("compression.json" if ours else "thesis.tex")).write_text("{}")

    return breaks


def link(name: str, to: str) -> Callable[[Path], object]:
    """A symbolic link."""
    return lambda folder: (folder / name).symlink_to(to)


def unfinished(text: str) -> Callable[[Path], None]:
    """What a stopped run for `out` left, bound to `text`."""

    def breaks(folder: Path) -> None:
        (folder / "out.state").mkdir()
        (folder / "out.state" / "run.json").write_text(text)

    return breaks


def reports(**changes) -> Callable[[Path], None]:
    """The stored reports `one` and `two`; the second with other values at its top, None removes."""

    def breaks(folder: Path) -> None:
        for name, threads, values in (("one", 1, {}), ("two", 2, changes)):
            (folder / name).mkdir()
            report = {**stored(threads=threads), **values}
            kept = {key: value for key, value in report.items() if value is not None}
            folders.put_json(folder / name / "report.json", kept)

    return breaks


def other_tokenizer(folder: Path) -> None:
    """A second checkpoint, whose tokenizer gives two words each other's ids."""
    import shutil

    shutil.copytree(folder / "model", folder / "other")
    path = folder / "other" / "tokenizer.json"
    content = folders.get_json(path)
    words = content["model"]["vocab"]
    words["great"], words["awful"] = words["awful"], words["great"]
    folders.put_json(path, content)


def other_order(folder: Path) -> None:
    """A second checkpoint, whose classes stand in the other order."""
    import shutil

    shutil.copytree(folder / "model", folder / "other")
    folders.change_json(
        folder / "other" / "config.json",
        id2label={"0": "positive", "1": "negative"},
        label2id={"positive": 0, "negative": 1},
    )


BOTH = "compare one two -o out"
ENTRY = folders.entry([2], 0, 8)
QUERY = "bert__encoder__layer__1__attention__self__query__weight"
LAYER = "bert.encoder.layer.1.attention.self.query"

CHECKPOINTS = [
    Fault("1 typo", nothing, "prune modle --method magnitude", 3,
          ("modle", "nearest name there: model", "hub:modle")),
    Fault("1 no such path", nothing, "inspect nowhere/at/all", 3, ("nowhere", "hub:NAME")),
    Fault("2 file", file("alone", b"x", to="."), "inspect alone", 3,
          ("is a file; expected a checkpoint folder",)),
    Fault("3 empty folder", lambda folder: (folder / "empty").mkdir(), "inspect empty", 3,
          ("is empty", "missing: config.json, weights")),
    Fault("3 no config", file("config.json", None), PRUNE, 3,
          ("missing: config.json", "model.safetensors")),
    Fault("3 no weights", file(WEIGHTS, None), PRUNE, 3, ("missing: weights", "config.json")),
    Fault("3 no tokenizer", file("tokenizer.json", None), PRUNE, 3, ("missing: a tokenizer",)),
    Fault("4 config cut off", file("config.json", b'{"model_type": "be'), PRUNE, 3,
          ("config.json", "line 1, column 16", "cut off")),
    Fault("4 config UTF-16", file("config.json", '{"a": 1}'.encode("utf-16")), PRUNE, 3,
          ("config.json", "UTF-16")),
    Fault("4 config is a list", file("config.json", b"[1]"), PRUNE, 3,
          ("config.json", "a list", "line 1, column 1")),
    Fault("5 unknown family", config(model_type="bret"), PRUNE, 3,
          ("bret", "nearest is bert", "roberta")),
    Fault("5 no family", config(model_type=None), PRUNE, 3, ("model_type is missing", "bert")),
    Fault("6 weights cut off", cut(10), PRUNE, 3, (WEIGHTS, "bytes", "promises", "cut off")),
    Fault("7 weights empty", file(WEIGHTS, b""), PRUNE, 3, (WEIGHTS, "0 bytes")),
    Fault("7 web page", file(WEIGHTS, b"<!DOCTYPE html><html>not found"), PRUNE, 3,
          (WEIGHTS, "web page")),
    Fault("7 git-lfs pointer",
          file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
          PRUNE, 3, ("git-lfs pointer", "git lfs pull")),
    Fault("8 header of 2^63 bytes", header(b"{}", length=2**63), PRUNE, 3,
          ("9,223,372,036,854,775,808",)),
    Fault("8 header is no JSON", header(b"{nonsense"), PRUNE, 3, (WEIGHTS, "not JSON")),
    Fault("8 name twice",
          header(b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2), data=b"\0" * 8),
          PRUNE, 3, ("a stands there twice",)),
    Fault("8 ranges overlap", header({"a": ENTRY, "b": folders.entry([2], 4, 12)}, data=b"\0" * 12),
          PRUNE, 3, ("tensor b", "overlaps")),
    Fault("8 shape overflows", header({"a": folders.entry([2**40, 2**40], 0, 8)}, data=b"\0" * 8),
          PRUNE, 3, ("tensor a", "needs")),
    Fault("8 negative sizes", header({"a": folders.entry([-2], 0, 8)}, data=b"\0" * 8), PRUNE, 3,
          ("tensor a", "not a list of sizes")),
    Fault("8 shallow bomb", header(b'{"a":' + b"[" * 100_000), PRUNE, 3, (WEIGHTS,)),
    Fault("9 bytes to spare", cut(-10), PRUNE, 3, (WEIGHTS, "too many")),
    Fault("10 shard missing", shard_missing, PRUNE, 3,
          ("1 of 2 shards", "model-00002-of-00002.safetensors")),
    Fault("10 shard outside", shard_outside, PRUNE, 3,
          ("../data/model.safetensors", "must be a file name inside the folder")),
    Fault("11 tensor missing", tensors(**{QUERY: None}), PRUNE, 3,
          (f"{LAYER}.weight", "missing", "1 in all")),
    Fault("11 norm missing", tensors(bert__embeddings__LayerNorm__weight=None), PRUNE, 3,
          ("bert.embeddings.LayerNorm.weight", "1 in all"), needs_torch=True),
    Fault("11 head missing", tensors(classifier__weight=None, classifier__bias=None), PRUNE, 3,
          ("classifier.weight", "compressor finetune"), needs_torch=True),
    Fault("12 tensor too many", extra_tensor, PRUNE, 3,
          ("unexpected", "bert.encoder.layer.1.extra.weight")),
    Fault("12 tensor too many outside", tensors(bert__extra__weight=np.ones(2, np.float32)),
          PRUNE, 3, ("bert.extra.weight",), needs_torch=True),
    Fault("13 head and labels", config(id2label={"0": "a", "1": "b", "2": "c"}), PRUNE, 3,
          ("head has 2 rows, config lists 3 labels: a, b, c",)),
    Fault("13 heads and width", config(num_attention_heads=3), PRUNE, 3,
          ("num_attention_heads 3 does not divide hidden_size 8",)),
    Fault("13 shapes and config", config(hidden_size=16), PRUNE, 3, ("hidden_size 16",)),
    Fault("13 more layers", config(num_hidden_layers=3), PRUNE, 3,
          ("bert.encoder.layer.2.", "missing")),
    Fault("14 NaN", tensors(**{QUERY: with_value(np.nan)}), PRUNE, 3, (LAYER, "1 NaN")),
    Fault("14 infinity", tensors(**{QUERY: with_value(np.inf)}), TRAIN, 3, (LAYER, "1 infinite")),
    Fault("15 int8 without scales", tensors(**{QUERY: lambda v: v.astype(np.int8)}), PRUNE, 3,
          (LAYER, "int8 values without scales")),
    Fault("16 only pickle", only_pickle, PRUNE, 3,
          ("pickle can run code", "machine you trust")),
    Fault("17 auto_map", config(auto_map={"AutoModel": "evil.Model"}), PRUNE, 3,
          ("auto_map", "run code")),
    Fault("17 kernel of the hub", config(_attn_implementation_internal="a/b"), PRUNE, 3,
          ("_attn_implementation_internal", "kernel")),
    Fault("17 code beside", file("modeling.py", b"boom()"), PRUNE, 3, ("modeling.py", "code")),
    Fault("18 newer format", newer, PRUNE, 3, ("schema 2", "9.9.9", "upgrade")),
    Fault("19 prune after int8", int8, "prune int8 --method magnitude -o out", 3,
          ("quantize is the last step before export", "start from model", "parent")),
    Fault("19 distil int8", int8, "distill int8 --data data -o out", 3, ("last step",)),
    Fault("19 int8 again", int8, "quantize int8 -o out", 3, ("last step",)),
    Fault("20 changed since", recorded, PRUNE, 3,
          ("config.json was changed", "sha256:000", "--accept-changed")),
]  # fmt: skip

DATA = [
    Fault("22 no such data", nothing, "finetune model --data dada -o out", 3,
          ("dada", "did you mean data", "jsonl")),
    Fault("22 wrong ending", file("x.docx", b"x", to="."), "finetune model --data x.docx", 3,
          (".docx", "jsonl")),
    Fault("22 folder without splits", file("x.jsonl", b"{}", to="empty"),
          "finetune model --data empty -o out", 3, ("x.jsonl", "train")),
    Fault("23 empty file", train(""), TRAIN, 3, ("train.jsonl", "no rows")),
    Fault("23 header only", train("text,label\n", "train.csv"), TRAIN, 3, ("no rows",)),
    Fault("24 latin-1", train(rows().encode() + b'{"text": "caf\xe9", "label": "positive"}\n'),
          TRAIN, 3, ("train.jsonl:3", "0xE9", "UTF-8", "latin-1")),
    Fault("24 UTF-16", train(rows().encode("utf-16")), TRAIN, 3, ("UTF-16", "UTF-8")),
    Fault("25 NUL", train(rows() + '{"text": "a\0b", "label": "positive"}\n'), TRAIN, 3,
          ("train.jsonl:3", "NUL")),
    Fault("25 lone surrogate", train(rows() + '{"text": "\\ud800", "label": "positive"}\n'),
          TRAIN, 3, ("train.jsonl:3", "surrogate")),
    Fault("26 broken JSON", train(rows() + "{text: 1}\n" + rows() + "{also\n"), TRAIN, 3,
          ("2 bad lines", "line 3", "line 6", "{text: 1}")),
    Fault("26 forty broken lines", train(rows() + "{no\n" * 40), TRAIN, 3,
          ("40 bad lines", "and 20 more")),
    Fault("26 ragged row", train("text,label\na,b,c\n", "train.csv"), TRAIN, 3,
          ("train.csv:2", "3 fields where the header has 2")),
    Fault("26 open quote", train('text,label\na,b\n"a,b\nc,d\n', "train.csv"), TRAIN, 3,
          ("train.csv:3", "never closed")),
    Fault("26 no parquet", train(b"PAR1 and nothing", "train.parquet"), TRAIN, 3,
          ("train.parquet", "not a readable parquet")),
    Fault("27 no such column", nothing, f"{TRAIN} --text-columns txet", 3,
          ("'txet'", "'text', 'label'", "did you mean 'text'")),
    Fault("27 row without column", train(rows({"label": "positive"})), TRAIN, 3,
          ("train.jsonl:3", "text")),
    Fault("28 mixed labels", train(rows({"text": "x", "label": 3})), TRAIN, 3,
          ("mixes", "'positive' (1 row, first at train.jsonl:1)", "train.jsonl:3")),
    Fault("28 missing label", train(rows({"text": "x", "label": None})), TRAIN, 3,
          ("missing", "train.jsonl:3")),
    Fault("29 unknown label", train(rows({"text": "x", "label": "meh"})),
          "distill model --data data -o out", 3, ("train.jsonl:3", "meh", "negative, positive")),
    Fault("22 nothing to score", nothing, "benchmark model --data dada", 3, ("dada", "mean data")),
    Fault("23 no such split", nothing, "benchmark model --data data --split test", 3,
          ("no test rows", "train and validation")),
    Fault("29 unknown label to score", train(rows({"text": "x", "label": "meh"}), "test.jsonl"),
          "benchmark model --data data", 3, ("test.jsonl:3", "meh", "negative, positive")),
    Fault("31 student's tokenizer", other_tokenizer,
          "distill model --student other --method tinybert --data data -o out", 3,
          ("great", "awful", "tokenizers", "tinybert"), needs_torch=True),
    Fault("31 second teacher's tokenizer", other_tokenizer,
          "distill model other --method minilm_v2 --data data -o out", 3,
          ("great", "awful", "tokenizers", "minilm_v2"), needs_torch=True),
    Fault("32 student's labels", other_order,
          "distill model --student other --data data -o out", 3,
          ("positive, negative", "negative, positive"), needs_torch=True),
    Fault("32 teacher's labels", other_order,
          "prune model --teacher other --data data -o out", 3,
          ("positive, negative", "negative, positive"), needs_torch=True),
    Fault("33 long row", long_rows, f"{TRAIN} --on-long error", 3,
          ("train.jsonl:3", "202 tokens"), needs_torch=True),
    Fault("35 rows in both", same_rows, f"{TRAIN} --no-overlap", 3,
          ("2 validation rows", "lines 1, 2")),
    Fault("36 endless line", train(b'{"text": "' + b"a" * 10_100_000), TRAIN, 3,
          ("train.jsonl:1", "10.1 MB")),
]  # fmt: skip

OPTIONS = [
    Fault("37 unknown verb", nothing, "distil model", 2, ("distil",)),
    Fault("37 unknown method", nothing, "prune model --method magnitud", 2,
          ("magnitud", "layer_drop, magnitude", "--method magnitude")),
    Fault("37 unknown flag", nothing, f"{PRUNE} --sparsty 0.5", 2, ("--sparsty",)),
    Fault("37 flag of another method", nothing, f"{PRUNE} --prune-end 0.5", 2, ("gmp",)),
    Fault("37 no number", nothing, f"{PRUNE} --sparsity much", 2, ("--sparsity", "valid number")),
    Fault("37 sparsity 1", nothing, f"{PRUNE} --sparsity 1.0", 2, ("--sparsity", "0.0 to 0.9999")),
    Fault("37 sparsity below 0", nothing, f"{PRUNE} --sparsity=-0.1", 2, ("0.0 to 0.9999",)),
    Fault("37 not even a number", nothing, f"{PRUNE} --sparsity nan", 2, ("--sparsity",)),
    Fault("37 negative epochs", nothing, f"{TRAIN} --epochs=-1", 2, ("--epochs", "at least 0")),
    Fault("37 endless epochs", nothing, f"{TRAIN} --epochs inf", 2, ("--epochs",)),
    Fault("37 batch 0", nothing, f"{TRAIN} --batch-size 0", 2, ("--batch-size", "at least 1")),
    Fault("37 no data", nothing, "finetune model", 2, ("--data",)),
    Fault("37 too many layers", nothing, "distill model --layers 9 --data data -o out", 2,
          ("--layers 9", "4 layers"), needs_torch=True),
    Fault("37 no such layer", nothing, "distill model --layer-map 0,99 --data data -o out", 2,
          ("99", "4 layers"), needs_torch=True),
    Fault("37 layer twice", nothing, "distill model --layer-map 1,1 --data data -o out", 2,
          ("--layer-map 1,1", "twice"), needs_torch=True),
    Fault("37 nothing to prune", nothing, "prune model --data data --exclude none -o out", 3,
          ("--exclude none",), needs_torch=True),
    Fault("37 backwards", nothing,
          "prune model --data data --prune-start 0.9 --prune-end 0.1 -o out", 2,
          ("--prune-end 0.1", "before"), needs_torch=True),
    Fault("37 endless seed", nothing, f"{TRAIN} --seed 99999999999999999999", 2,
          ("--seed", "0 to 2147483647")),
    Fault("37 no such set", recipe("steps: []"), "run recipe.yaml --set x=1", 2, ("--set x",)),
    Fault("38 no recipe", nothing, "run quickstrat", 3, ("quickstrat", "quickstart")),
    Fault("38 no recipe file", nothing, "run none.yaml", 3, ("none.yaml",)),
    Fault("38 bad YAML", recipe("steps:\n  - prune: {model: a\n"), "run recipe.yaml", 3,
          ("recipe.yaml:3",)),
    Fault("38 unknown verb", recipe("steps:\n  - purne: {model: a}\n"), "run recipe.yaml", 3,
          ("recipe.yaml:2", "purne", "prune")),
    Fault("38 unknown key", recipe("stpes: []\n"), "run recipe.yaml", 3, ("recipe.yaml",)),
    Fault("38 unknown flag", recipe("steps:\n  - prune: {model: a, sparsty: 1}\n"),
          "run recipe.yaml", 3, ("recipe.yaml:2", "--sparsty", "--sparsity")),
    Fault("38 Python tag", recipe("steps: !!python/object/apply:os.system ['touch boom']\n"),
          "run recipe.yaml", 3, ("recipe.yaml:1",)),
    Fault("38 missing variable", recipe("steps:\n  - inspect: {model: '{teacher}'}\n"),
          "run recipe.yaml", 3, ("recipe.yaml:2", "teacher", "--set")),
    Fault("38 attribute of a variable",
          recipe("variables: {a: b}\nsteps:\n  - inspect: {model: '{a.real}'}\n"),
          "run recipe.yaml", 3, ("recipe.yaml:3", "{a.real}")),
    Fault("38 variables are a list", recipe("variables: [a]\nsteps: []\n"), "run recipe.yaml", 3,
          ("recipe.yaml", "variables")),
    Fault("38 cycle", recipe("steps: &again\n  - *again\n"), "run recipe.yaml", 3,
          ("recipe.yaml",)),
    Fault("38 latin-1", recipe(b"description: caf\xe9\nsteps: []\n"), "run recipe.yaml", 3,
          ("recipe.yaml", "UTF-8")),
    Fault("39 output exists", made("out", ours=True), PRUNE, 3, ("out", "--force")),
    Fault("39 output is not ours", made("out", ours=False), f"{PRUNE} --force", 3,
          ("out", "was not written by compressor")),
    Fault("39 output is a file", file("out", b"x", to="."), f"{PRUNE} --force", 3, ("out",)),
    Fault("39 output is the input", nothing, "prune model --method magnitude -o model --force", 3,
          ("model", "is the input")),
    Fault("39 output in the input", nothing, "prune model --method magnitude -o model/out", 3,
          ("lies inside the input",)),
    Fault("39 output holds the input", nothing, "prune model --method magnitude -o . --force", 3,
          ("output",)),
    Fault("39 no parent", nothing, "prune model --method magnitude -o no/out", 3,
          ("no folder no", "mkdir -p no")),
    Fault("39 link to the input", link("out", "model"), f"{PRUNE} --force", 3,
          ("out", "is the input")),
    Fault("45 other seed", unfinished('{"seed": 7, "gone": true}'), f"{TRAIN} --resume", 3,
          ("seed: 7 -> 42", "gone: True -> None", "--force"), needs_torch=True),
    Fault("45 broken record", unfinished('{"seed": 7'), f"{TRAIN} --resume", 3,
          ("run.json", "cut off"), needs_torch=True),
    Fault("39 report exists", made("out", ours=True), "benchmark model -o out", 3,
          ("out", "--force")),
    Fault("39 report over the input", nothing, "benchmark model -o model --force", 3,
          ("model", "is the input")),
    Fault("39 graph over the input", nothing, "export model -o model --force", 3,
          ("model", "is the input")),
    Fault("37 no such shape", nothing, "benchmark model --shapes 1x0", 2, ("--shapes", "1x32")),
    Fault("37 no gate", nothing, "benchmark model --min-speedup nan", 2, ("--min-speedup",)),
    Fault("37 gate on itself", nothing, "benchmark model --min-speedup 2", 3,
          ("its own baseline",)),
    Fault("37 number format", nothing, "export model --weights int3", 2, ("int8, fp16, fp32",)),
    Fault("11 no head to generate with", nothing, "generate model --data data -o out", 3,
          ("no masked-lm head", "BertForSequenceClassification",
           "finetune model --task masked-lm --data")),
    Fault("19 generate with int8", int8, "generate int8 --data data -o out", 3, ("last step",)),
    Fault("37 probability above 1", nothing, "generate model --data data --p 1.5", 2,
          ("--p 1.5", "0.0 to 1.0")),
    Fault("46 no package", nothing, "prune pkg:not_there/model --method magnitude", 6,
          ("not_there", "pip install not-there")),
    *(
        Fault(f"46 no GPU to {words.split()[0]}", nothing, f"{words} --device cuda", 6,
              ("--device", "GPU"), needs_torch=True)
        for words in (TRAIN, PRUNE, "quantize model -o out", "benchmark model -o out")
    ),
    Fault("47 nothing before", nothing, "prune - --method magnitude", 3,
          ("the stage before this one produced no checkpoint",)),
    Fault("47 blanks before", nothing, "inspect -", 3, ("no checkpoint",), stdin=b" \n\n"),
    Fault("47 junk before", nothing, "inspect -", 3, ("does not exist",), stdin=b"\xff\xfe\x80\n"),
    Fault("47 NUL before", nothing, "inspect -", 3, ("not the name of a folder",), stdin=b"\0\0"),
    Fault("47 two lines before", nothing, "quantize -", 3, ("2 lines", "expected one"),
          stdin=b"model\nmodel\n"),
    Fault("47 JSON without output", nothing, "quantize -", 3, ("output",), stdin=b'{"a": 1}\n'),
    Fault("47 no end before", nothing, "inspect -", 3, ("file name too long",),
          stdin=b"a" * 3_000_000),
]  # fmt: skip

REPORTS = [
    Fault("1 no such report", reports(), "compare one tow -o out", 3, ("tow", "nearest", "two")),
    Fault("2 folder without a report", nothing, "compare model -o out", 3,
          ("model holds no report.json", "config.json", "compressor benchmark")),
    Fault("3 report empty", only(reports(), file("report.json", b"", to="two")), BOTH, 3,
          ("two/report.json", "0 bytes")),
    Fault("4 report cut off", only(reports(), file("report.json", b'{"schema": 1', to="two")), BOTH,
          3, ("two/report.json", "cut off")),
    Fault("4 NaN in a report",
          only(reports(), file("report.json", b'{"schema": 1, "models": [NaN]}', to="two")), BOTH,
          3, ("two/report.json", "NaN is not JSON")),
    Fault("4 other JSON", reports(models=None), BOTH, 3,
          ("two/report.json", "no report of `compressor benchmark`")),
    Fault("4 report without a machine", reports(machine=None), BOTH, 3,
          ("two/report.json", "machine is missing")),
    Fault("18 report of another schema", reports(schema=2), BOTH, 3,
          ("two/report.json", "schema 2, expected 1", "compressor benchmark")),
    Fault("37 no report named", nothing, "compare -o out", 2, ("report",)),
    Fault("37 report twice", reports(), "compare one two one -o out", 3, ("the same report",)),
    Fault("37 block without a file", reports(), f"{BOTH} --block results", 2, ("--into FILE",)),
    Fault("37 no name of a block", reports(), f"{BOTH} --into R.md --block -->", 2,
          ("--block -->",)),
    Fault("39 no file to write into", reports(), f"{BOTH} --into R.md", 3,
          ("R.md does not exist",)),
    Fault("39 file without the block", only(reports(), file("R.md", b"text\n", to=".")),
          f"{BOTH} --into R.md", 3, ("<!-- compressor compare results -->", "nowhere")),
    Fault("39 comparison over a report", reports(), "compare one two -o two --force", 3,
          ("two", "is the input")),
    Fault("39 comparison exists", only(reports(), made("out", ours=True)), BOTH, 3,
          ("out", "--force")),
    Fault("47 no report before", reports(), "compare one - -o out", 3, ("the stage before",)),
]  # fmt: skip

FAULTS = [*CHECKPOINTS, *DATA, *OPTIONS, *REPORTS]


def lay_out(folder: Path) -> None:
    """The whole state that a case breaks, made without torch."""
    folders.make(folder / "model")
    (folder / "data").mkdir()
    for split in ("train", "validation"):
        extra = {"text": f"a {split} row", "label": "positive"}
        (folder / "data" / f"{split}.jsonl").write_text(rows(extra))
