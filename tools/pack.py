"""Pack a run's saved weights again, by its recipe and the changes given; no training."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from core.artifact.container import identity
from core.artifact.ledger import ledger, require_fits
from core.train.clock import BudgetClock
from core.train.finish import pack
from core.train.recipe import with_changes
from core.train.run_folder import load_recipe, load_weights
from tools.bundling.script import code_bytes
from tools.say import UsageError, print_fields, print_json, require_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a folder of runs/")
    parser.add_argument(
        "changes", nargs="*", metavar="quant.field=value", help="changes to the quant section"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where to write (default: RUN/model.bin, or RUN/repacked.bin with changes)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if wrong := [change for change in args.changes if not change.startswith("quant.")]:
        raise UsageError(f"pack changes only the quant section, found {wrong[0]!r}")
    try:
        recipe = with_changes(load_recipe(args.run_folder), args.changes)
    except ValueError as error:
        raise UsageError(str(error)) from None
    out = args.out or args.run_folder / ("repacked.bin" if args.changes else "model.bin")
    require_folder(out)
    clock = BudgetClock(time.perf_counter)
    artifact, model = pack(load_weights(args.run_folder), recipe, clock)
    counts = ledger(model, code_bytes(recipe))
    out.write_bytes(model)
    fields = {
        "file": str(out),
        "identity": identity(artifact),
        "model_bytes": counts.model_bytes,
        "artifact_bytes": counts.artifact_bytes,
        "margin_bytes": counts.margin_bytes,
        "code_bytes": counts.code_bytes,
        "bytes": dict(counts.rows),
        "phases_s": clock.phases(),
    }
    (print_json if args.json else print_fields)(fields)
    require_fits(counts)
    return 0
