"""What an artifact holds: identity, format version, bytes of every tensor; executes nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.artifact.container import inspect
from tools.artifact import artifact_bytes, open_artifact
from tools.say import print_fields, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="a model.bin")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    open_artifact(args.artifact)
    fields = inspect(artifact_bytes(args.artifact))
    if args.json:
        print_json(fields)
        return 0
    tensors = fields.pop("tensors")
    print_fields(fields)
    print(f"\n{'tensor':<32}{'shape':>14}  {'format':<8}{'codec':<6}{'bytes':>12}")
    for row in tensors:
        shape, size = "x".join(map(str, row["shape"])), f"{row['bytes']:,}"
        print(f"{row['name']:<32}{shape:>14}  {row['format']:<8}{row['codec']:<6}{size:>12}")
    return 0
