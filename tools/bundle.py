"""Write a recipe and the code it reaches as one train_gpt.py that runs in an empty folder.

It takes DATA_PATH, TOKENIZER_PATH, SEED and RUN_ID from the environment, runs under python and
torchrun, and leaves what a run of the toolkit leaves in runs/<run_id>/.

Or, with --decoder-only, print what reads an artifact in any other script: numpy and Python alone.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from core.train.recipes import RECIPES, named
from tools.artifact import artifact_bytes, open_artifact
from tools.backends import BACKENDS
from tools.bundling.decoder import PLAIN, codecs_in, decoder
from tools.bundling.script import bundle, readable
from tools.recipes import add_recipe, read_recipe
from tools.say import UsageError, note, print_fields, print_json, require_folder

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
    parser.add_argument(
        "--decoder-only",
        action="store_true",
        help="print a decoder of artifacts, or of one: of a run's folder or a model.bin",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.table:
        return _print_table(args)
    if args.decoder_only:
        return _print_decoder(args)
    recipe = read_recipe(args.words, args.default_recipe)
    if recipe.kernels == "on":
        raise UsageError("a bundle has no Triton kernels in it; leave kernels=on away")
    out = args.out or Path(DEFAULT_OUT[args.backend])
    require_folder(out)
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


def _print_decoder(args: argparse.Namespace) -> int:
    """The source to stdout or --out; its sizes to stderr, or everything as JSON."""
    if len(args.words) > 1 or args.readable:
        raise UsageError("--decoder-only takes an artifact, a file or a run's folder, or nothing")
    made = decoder(_codecs_of(Path(args.words[0])) if args.words else PLAIN)
    source = made.source.encode()
    fields = {
        "source_bytes": len(source),
        "minified_bytes": len(made.minified.encode()),
        "compressed_bytes": made.compressed_bytes,
        "codecs": list(made.codecs),
        "sha256": hashlib.sha256(source).hexdigest(),
    }
    if args.out:
        require_folder(args.out)
        args.out.write_bytes(source)
        (print_json if args.json else print_fields)({"file": str(args.out), **fields})
    elif args.json:
        print_json({**fields, "source": made.source})
    else:
        print(made.source, end="")
        sizes = "{source_bytes:,} bytes; {minified_bytes:,} minified, {compressed_bytes:,} of LZMA"
        note(f"decoder: {sizes.format(**fields)}")
    return 0


def _codecs_of(path: Path) -> set[str]:
    """Of a file or of a run's."""
    file = path / "model.bin" if (path / "model.bin").is_file() else path
    open_artifact(file)  # raises for what is none
    return codecs_in(artifact_bytes(file))


def _print_table(args: argparse.Namespace) -> int:
    if args.words or args.out or args.readable:
        raise UsageError("--table is of every named recipe and writes no file; give it alone")
    sizes = table()
    if args.json:
        print_json({"recipes": sizes})
    else:
        print(as_markdown(sizes), end="")
    return 0


def table() -> dict[str, dict[str, dict[str, int]]]:
    """Bytes of every named recipe's bundle, by recipe and backend."""
    return {name: {backend: _sizes(name, backend) for backend in BACKENDS} for name in RECIPES}


def _sizes(name: str, backend: str) -> dict[str, int]:
    made = bundle(named(name), backend)
    return {"code_bytes": len(made.script), "minified_bytes": made.minified_bytes}


def as_markdown(sizes: dict[str, dict[str, dict[str, int]]]) -> str:
    """One row a recipe."""
    lines = ["| recipe | torch | minified, unpacked | MLX | minified, unpacked |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name, sides in sizes.items():
        cells = [f"{one['code_bytes']:,} | {one['minified_bytes']:,}" for one in sides.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
