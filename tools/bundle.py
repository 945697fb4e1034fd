"""Write a recipe and the code it reaches as one train_gpt.py that runs in an empty folder.

It takes DATA_PATH, TOKENIZER_PATH, SEED and RUN_ID from the environment, runs under python and
torchrun, and leaves what a run of the toolkit leaves in runs/<run_id>/.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from core.train.recipes import RECIPES, named
from tools.backends import BACKENDS
from tools.bundling.script import bundle, readable
from tools.recipes import add_recipe, read_recipe
from tools.say import note, print_fields, print_json

DEFAULT_OUT = {"torch": "train_gpt.py", "mlx": "train_gpt_mlx.py"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "baseline")
    parser.add_argument("--backend", choices=BACKENDS, default="torch")
    parser.add_argument("--out", type=Path, help=f"default: {', '.join(DEFAULT_OUT.values())}")
    parser.add_argument(
        "--readable", action="store_true", help="formatted source, not packed: to read and review"
    )
    parser.add_argument(
        "--table", action="store_true", help="only print the sizes of every named recipe"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.table:
        print(table(), end="")
        return 0
    recipe = read_recipe(args.words, args.default_recipe)
    out = args.out or Path(DEFAULT_OUT[args.backend])
    made = bundle(recipe, args.backend)
    script = readable(recipe, args.backend).encode() if args.readable else made.script
    out.write_bytes(script)
    fields = {
        "file": str(out),
        "recipe": recipe.name,
        "backend": args.backend,
        "code_bytes": len(script),
        "minified_bytes": made.minified_bytes,
        "source_bytes": made.source_bytes,
        "lines": script.count(b"\n"),
        "sha256": hashlib.sha256(script).hexdigest(),
    }
    (print_json if args.json else print_fields)(fields)
    if args.readable:
        note("a readable file is for eyes: the packed one, without --readable, is what is counted")
    return 0


def table() -> str:
    """Bytes of every named recipe's bundle, as markdown."""
    lines = ["| recipe | torch | minified, unpacked | MLX | minified, unpacked |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name in RECIPES:
        made = [bundle(named(name), backend) for backend in BACKENDS]
        sizes = [f"{len(b.script):,} | {b.minified_bytes:,}" for b in made]
        lines.append(f"| `{name}` | {' | '.join(sizes)} |")
    return "\n".join(lines) + "\n"
