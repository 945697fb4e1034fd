"""What adaptation is worth on real text, and what it costs: python -m tests.adaptation --help.

Trains half of `small` for a few minutes, or takes a packed model, and scores it plain and with each
adaptation; the rows are markdown, to paste into docs/adaptation.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from core.arch.fields import override
from core.data.batches import Data
from core.score.scoring import Score
from core.train.recipe import with_changes
from core.train.recipes import named
from core.train.run_folder import RunFolder
from tools.scoring_job import score_artifact
from tools.train import train

MODEL = ("arch.model_dim=128", "arch.num_heads=2", "arch.num_kv_heads=1", "arch.mlp_dim=256")
MODEL += ("data.train_batch_tokens=2048", "score.val_every_steps=0")
# The records' numbers, but for what a model of 4 x 128 in rows of 256 has less of.
SIZES = ("sgd.chunk_tokens=4096", "sgd.batch_seqs=16", "lora.rank=16", "lora.alpha=28.8")
SIZES += ("lora.docs_batch=16", "phased.prefix_docs=30")
ROWS: tuple[tuple[str, ...], ...] = (
    ("protocol=chunked",),
    ("protocol=sliding",),
    ("protocol=sliding", "adapt=sgd"),
    ("protocol=docs",),
    ("protocol=strided-docs",),
    ("protocol=strided-docs", "adapt=lora"),
    ("protocol=strided-docs", "adapt=lora", "lora.lr=0.001"),
    ("protocol=strided-docs", "adapt=lora", "lora.lr=0.001", "lora.warm_a=false"),
    ("protocol=strided-docs", "adapt=phased", "sgd.lr=0.001", "sgd.epochs=1"),
    ("protocol=strided-docs", "adapt=phased", "lora.lr=0.001"),
)


def trained(args: argparse.Namespace) -> bytes:
    """The packed model of a short run."""
    changes = [f"data.path={args.data}", f"data.tokenizer={args.tokenizer}"]
    changes += [f"schedule.steps={args.steps}", *MODEL]
    recipe = with_changes(named("small"), changes)
    with tempfile.TemporaryDirectory() as folder:
        finished = train(recipe, args.backend, RunFolder(folder, "run"), quiet=True)
    assert finished is not None
    return finished.model


def row(model: bytes, words: tuple[str, ...], args: argparse.Namespace) -> str:
    settings = Score(batch=16, stride=args.stride, limit_tokens=args.limit_tokens)
    settings = override(settings, [*SIZES, *words], "the adaptation")
    where = Data(path=str(args.data), tokenizer=str(args.tokenizer))
    found = score_artifact(model, where, settings, args.backend, "fp32")
    changed = ", ".join(word for word in words[2:])
    cells = settings.protocol, settings.adapt, changed, f"{found['val_bpb']:.5f}"
    return f"| {' | '.join(cells)} | {found['seconds']:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--tokenizer", required=True, type=Path)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--stride", type=int, default=64)
    parser.add_argument("--limit-tokens", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a packed model, or where to keep the new one")
    args = parser.parse_args()
    if args.model is not None and args.model.exists():
        model = args.model.read_bytes()
    else:
        model = trained(args)
        if args.model is not None:
            args.model.write_bytes(model)
    print("| protocol | adapt | but for | val_bpb | seconds |\n|---|---|---|--:|--:|")
    for words in ROWS:
        print(row(model, words, args), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
