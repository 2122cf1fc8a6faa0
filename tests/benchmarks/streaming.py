"""Pruning a checkpoint of several gigabytes with the memory of one tensor.

    python tests/benchmarks/streaming.py [--gigabytes 6] [--folder FOLDER]

Writes a Llama-shaped checkpoint of random bfloat16 weights in shards of 1 GB, then in turns: a
plain copy of its files, `prune --method magnitude` (one share per matrix, 2:4, one threshold for
all) and `prune --method layer_drop`. Prints seconds and the peak of resident memory of each
command's process. FOLDER (default: a temporary one) needs room for two and a half checkpoints.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import compressor as package

HIDDEN, FFN, HEADS, WORDS = 2048, 8192, 16, 32_000
SHARD_BYTES = 10**9
COMMANDS = {
    "magnitude, 50 % of each matrix": "--method magnitude --sparsity 0.5",
    "magnitude, 2:4": "--method magnitude --pattern 2:4",
    "magnitude, one threshold": "--method magnitude --sparsity 0.5 --scope global",
    "a quarter of the layers dropped": "--method layer_drop --drop QUARTER",
}


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model by name."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS, HIDDEN)}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{stem}.self_attn.{name}.weight"] = (HIDDEN, HIDDEN)
        for name in ("gate_proj", "up_proj"):
            found[f"{stem}.mlp.{name}.weight"] = (FFN, HIDDEN)
        found[f"{stem}.mlp.down_proj.weight"] = (HIDDEN, FFN)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{stem}.{name}.weight"] = (HIDDEN,)
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (WORDS, HIDDEN)}


def write_checkpoint(folder: Path, layers: int) -> None:
    """A sharded checkpoint."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    shards: list[dict[str, torch.Tensor]] = [{}]
    room, total, where = SHARD_BYTES, 0, {}
    for name, shape in shapes(layers).items():
        tensor = torch.randn(shape).mul_(0.02).to(torch.bfloat16)
        if tensor.nbytes > room:
            save_file(shards[-1], folder / f"model-{len(shards):05}.safetensors", {"format": "pt"})
            shards[-1] = {}  # written: let go of it
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name], where[name] = tensor, f"model-{len(shards):05}.safetensors"
        room, total = room - tensor.nbytes, total + tensor.nbytes
    save_file(shards[-1], folder / f"model-{len(shards):05}.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": WORDS,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """The smallest tokenizer that opens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)


def run(words: list[str]) -> tuple[float, float]:
    """Seconds and peak resident GB of a process."""
    started = time.perf_counter()
    path = str(Path(package.__file__).parents[1])
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed with status {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return time.perf_counter() - started, peak / 1e9


def measure(folder: Path, gigabytes: float) -> None:
    """Print one line for each way."""
    per_layer = sum(2 * a * b for a, b in [(HIDDEN, HIDDEN)] * 4 + [(FFN, HIDDEN)] * 3)
    layers = max(4, round((gigabytes * 1e9 - 4 * WORDS * HIDDEN) / per_layer))
    # In a process of its own: a child's peak is never below what its parent held at the start.
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=write_checkpoint, args=(folder / "model", layers))
    writer.start()
    writer.join()
    total = sum(file.stat().st_size for file in (folder / "model").iterdir())
    print(f"{total / 1e9:.2f} GB in {layers} layers")
    os.sync()
    ways = {"plain copy": ["cp", "-r", str(folder / "model"), str(folder / "out")]}
    for name, flags in COMMANDS.items():
        flags = flags.replace("QUARTER", str(layers // 4)).split()
        words = ["-m", "compressor", "prune", str(folder / "model"), *flags, "-o"]
        ways[name] = [sys.executable, *words, str(folder / "out")]
    for name, words in ways.items():
        seconds, peak = run(words)
        os.sync()
        shutil.rmtree(folder / "out")
        print(f"{name:34} {seconds:7.1f} s  {peak:5.2f} GB", flush=True)


def main() -> None:
    """Parse the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory(dir=given.folder) as folder:
        measure(Path(folder), given.gigabytes)


if __name__ == "__main__":
    main()
