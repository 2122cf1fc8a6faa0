"""Our int8 graph beside optimum-onnx's of the same checkpoint: speed in turns, and accuracy.

    GOMP_SPINCOUNT=1000 python tests/benchmarks/export_vs_peers.py CHECKPOINT --data DATA -o FOLDER

optimum-onnx 0.1.0 cannot live with transformers 5, so it gets an environment of its own in FOLDER,
with the ONNX Runtime that is installed here; its command line exports and quantizes with its own
preset for this processor (avx512_vnni where there is VNNI, avx2 elsewhere). All graphs, and
PyTorch in float, are then measured by `compressor benchmark` in one run. Prints the geometric means
over the shapes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

from compressor.cli import run
from compressor.measure.machine import machine_facts

SHAPES = "1x16,1x64,1x128,8x64,32x64"
PEERS = ("optimum-onnx==0.1.0", "transformers==4.57.6", "torch==2.13.0")


def peer_environment(folder: Path) -> Path:
    """The folder of programs of an environment with optimum-onnx."""
    programs = folder / "environment" / "bin"
    if not (programs / "optimum-cli").exists():
        subprocess.run([sys.executable, "-m", "venv", str(programs.parent)], check=True)
        runtime = importlib.metadata.version("onnxruntime")
        wanted = [*PEERS, f"onnxruntime=={runtime}", "onnx"]
        subprocess.run([str(programs / "pip"), "install", "-q", *wanted], check=True)
    return programs


def peer_graph(checkpoint: Path, folder: Path) -> tuple[Path, str]:
    """optimum's int8 graph as a folder that holds `model.onnx`, and its preset."""
    programs = peer_environment(folder)
    features = machine_facts(1)["features"] or []
    preset = "avx512_vnni" if {"avx512_vnni", "avx_vnni"} & set(features) else "avx2"
    exported, quantized = folder / "optimum-fp32", folder / "optimum"
    for made in (exported, quantized):
        shutil.rmtree(made, ignore_errors=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    cli = str(programs / "optimum-cli")
    words = [cli, "export", "onnx", "--model", str(checkpoint), "--task", "text-classification"]
    subprocess.run([*words, str(exported)], check=True, env=clean)
    words = [cli, "onnxruntime", "quantize", "--onnx_model", str(exported), f"--{preset}"]
    subprocess.run([*words, "-o", str(quantized)], check=True, env=clean)
    (quantized / "model_quantized.onnx").rename(quantized / "model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint / name, quantized / name)
    return quantized, preset


def main() -> None:
    """Make the graphs, measure them and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", default="30")
    given = parser.parse_args()
    folder = given.output
    folder.mkdir(parents=True, exist_ok=True)
    peer, preset = peer_graph(given.checkpoint, folder)
    ours = folder / "ours"
    if code := run(["export", str(given.checkpoint), "-o", str(ours), "--force"]):
        raise SystemExit(code)
    words = ["benchmark", str(ours), str(peer), "--baseline", str(given.checkpoint)]
    words += ["--data", given.data, "--split", "validation", "--shapes", SHAPES]
    words += ["--rounds", given.rounds, "-o", str(folder / "report"), "--force"]
    if code := run(words):
        raise SystemExit(code)
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    models = {model["name"]: model for model in report["models"]}
    times = {name: [row["p50_ms"] for row in model["latency"]] for name, model in models.items()}
    ratios = [other / own for own, other in zip(times["ours"], times["optimum"], strict=True)]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"optimum-onnx 0.1.0, preset {preset}; over ours at {SHAPES}:")
    print(" ".join(f"{ratio:.2f}" for ratio in ratios), f"geometric mean {mean:.2f}")
    base = times[given.checkpoint.name]
    print(f"PyTorch over ours at 1x16: {base[0] / times['ours'][0]:.2f}")
    for name in ("ours", "optimum", given.checkpoint.name):
        print(name, models[name]["accuracy"]["value"])


if __name__ == "__main__":
    main()
