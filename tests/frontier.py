"""Trains the recipes of the frontier, scaled down, on real text: python -m tests.frontier --help.

Equal tokens for all, on one engine; the rows are markdown, to paste into docs/frontier.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from core.arch.params import num_params
from core.arch.spec import ModelSpec
from core.data.batches import Data
from core.train.recipe import Optim, Recipe, Schedule, with_changes
from core.train.recipes import named
from core.train.run_folder import RunFolder
from core.train.scale import scaled
from tools.train import train

NAMES = ("baseline", "universal", "ternary", "r1081", "r1061")
SIZE = Recipe(
    name="mini",
    precision="fp32",
    arch=ModelSpec(num_layers=6, model_dim=128, num_heads=2, num_kv_heads=1, seq_len=256),
    optim=Optim(),
    schedule=Schedule(steps=500, log_every_steps=50),
    data=Data(train_batch_tokens=2048),
)
COMMON = (  # of all of them: what a short run on a CPU needs, whatever the recipe
    *("precision=fp32", "optim.ns_precision=fp32", "optim.ema_decay=0.98"),
    *("schedule.budget_s=0", "schedule.warmdown=0.6"),
    *("schedule.warmdown_unit=frac", "optim.momentum_warmup_steps=60", "data.micro_batch=0"),
    *("score.val_every_steps=0", "score.batch=16", "score.protocol=chunked"),
    *("quant.scale_floor=0", "quant.keep_below=4096", "quant.codec=zlib", "quant.solver=nearest"),
    *("quant.lqer_rank=0", "score.adapt=none"),  # and all matrices in int8, by the largest weight:
    *(f"quant.{role}=int8" for role in ("embed", "attn", "mlp")),
    *(f"quant.{role}_sigmas=0" for role in ("embed", "attn", "mlp")),
)
BASELINE = Optim()
WITHOUT = {  # each technique of the two records switched off alone
    "their rates": " ".join(
        f"optim.{name}={getattr(BASELINE, name)}"
        for name in ("matrix_lr", "embed_lr", "scalar_lr", "momentum", "momentum_start")
    ),
    "loops": "arch.phases=[]",
    "parallel or lanes": "arch.routing=serial",
    "XSA": "arch.xsa_last=0",
    "attention gates": "arch.attn_gate_dims=0",
    "smear": "arch.smear=none",
    "document mask": "arch.doc_mask=false",
    "skip gates": "arch.skip_gates=false",
    "LN scale": "arch.ln_scale=false",
    "partial RoPE": "arch.rope_dims=none",
    "leaky relu^2": "arch.activation=relu2",
    "orthogonal start": "arch.matrix_init=uniform",
    "row norm": "optim.row_norm=none",
    "weight decay": "optim.matrix_wd=0",
    "clipping": "optim.grad_clip_norm=0",
    "QK gain of 5": "arch.qk_gain_init=1.5",
}


def recipe_of(name: str, args: argparse.Namespace, *changes: str) -> Recipe:
    recipe = scaled(named(name), SIZE)
    recipe = replace(recipe, arch=replace(recipe.arch, vocab_size=args.vocab_size))
    data = (f"data.path={args.data}", f"data.tokenizer={args.tokenizer}")
    return with_changes(recipe, [*COMMON, *data, f"schedule.steps={args.steps}", *changes])


def row(title: str, recipe: Recipe, backend: str) -> str:
    """One run: the score of its packed file."""
    with tempfile.TemporaryDirectory() as folder:
        finished = train(recipe, backend, RunFolder(folder, "run"), quiet=True)
    assert finished is not None
    scored, size = finished.after, finished.ledger.model_bytes
    cells = (title, f"{num_params(recipe.arch):,}", backend, str(recipe.seed))
    return f"| {' | '.join(cells)} | {scored.val_bpb:.4f} | {size:,} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--tokenizer", required=True, type=Path)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--recipes", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--ablate", metavar="RECIPE", help="each of its techniques off alone")
    args = parser.parse_args()
    print("| recipe | parameters | engine | seed | val_bpb | bytes |\n|---|--:|---|--:|--:|--:|")
    for seed in args.seeds:
        for name in [args.ablate] if args.ablate else args.recipes:
            print(row(name, recipe_of(name, args, f"seed={seed}"), args.backend), flush=True)
        for what, change in WITHOUT.items() if args.ablate else ():
            recipe = recipe_of(args.ablate, args, f"seed={seed}", *change.split())
            if recipe.arch != recipe_of(args.ablate, args).arch or change.startswith("optim"):
                print(row(f"without {what}", recipe, args.backend), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
