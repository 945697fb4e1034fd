"""The models that quantizers are measured on: trained, kept, gone on with where they were stopped.

python -m tests.quant_models --help. Three seeds of 4.2 million parameters on 10.2 million
tokens, or with --short one of 2.2 million on 2 million; of text that stands beside the project.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.shared_data import OFFICIAL, SHARED
from tools.main import main as golf

TEXT = SHARED / "data" / "bench_openweb.jsonl.gz"
TOKENIZER = SHARED / OFFICIAL
VAL_DOCS = 400
MODEL = ("precision=autocast", "data.train_batch_tokens=8192", "data.loader=shuffled")
LONG = (*MODEL, "arch.num_layers=8", "arch.mlp_dim=576", "schedule.steps=1250")
SHORT = (*MODEL, "schedule.steps=250")
QUIET = ("schedule.log_every_steps=25", "score.val_every_steps=0", "score.limit_tokens=100000")


def run_of(folder: Path, seed: int, short: bool) -> Path:
    return folder / f"{'short' if short else 'quant'}-seed{seed}"


def trained(folder: Path, seed: int, short: bool) -> Path:
    """The run's folder, once it is finished."""
    run = run_of(folder, seed, short)
    if (run / "model.bin").exists():
        return run
    shards = folder / "openweb"
    if not shards.exists():
        words = ["--tokenizer", str(TOKENIZER), "--out", str(shards), "--val-docs", str(VAL_DOCS)]
        assert golf(["data", "tokenize", str(TEXT), *words]) == 0
    words = [*(SHORT if short else LONG), *QUIET, f"seed={seed}"]
    words += [f"data.path={shards}", f"data.tokenizer={TOKENIZER}"]
    command = [sys.executable, "-m", "tools", "train", "small", "--backend", "torch", *words]
    command += ["--runs", str(folder), "--run-id", run.name, "--resume", "auto"]
    subprocess.run([*command, "--checkpoint-steps", "100"], check=True)
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quant"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one seed, minutes in place of hours")
    args = parser.parse_args()
    for seed in range(1, 2 if args.short else args.seeds + 1):
        print(trained(args.out, seed, args.short), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
