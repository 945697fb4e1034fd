"""What an artifact or a stranger's blob holds: bytes of every tensor; executes nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.artifact.container import inspect
from core.artifact.header import MAGIC
from tools.artifact import artifact_bytes, open_artifact
from tools.say import print_fields, print_json
from tools.strangers.foreign import foreign_tensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="a model.bin, or another's packed model")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    data = artifact_bytes(args.artifact)
    if data.startswith(MAGIC):
        open_artifact(args.artifact)
        fields = inspect(data)
    else:
        fields = foreign_fields(data, str(args.artifact))
    if args.json:
        print_json(fields)
        return 0
    tensors = fields.pop("tensors")
    print_fields(fields)
    print(f"\n{'tensor':<32}{'shape':>14}  {'format':<8}{'codec':<6}{'bytes':>12}")
    for row in tensors:
        shape, size = "x".join(map(str, row["shape"])), f"{row['bytes']:,}"
        name, codec = _shown(row["name"]), row.get("codec", "")
        print(f"{name:<32}{shape:>14}  {_shown(row['format']):<8}{codec:<6}{size:>12}")
    return 0


def foreign_fields(data: bytes, subject: str) -> dict[str, Any]:
    """The fields of a blob that this toolkit did not write; it has no identity."""
    found = foreign_tensors(data, subject)
    return {
        "identity": None,
        "model_bytes": found.model_bytes,
        "format": found.format,
        "format_version": None,
        "parameters": found.parameters,
        "tensors": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "format": tensor.dtype,
                "bytes": tensor.bytes,
            }
            for tensor in found.tensors
        ],
    }


def _shown(text: str) -> str:
    """A stranger's name, without what moves a terminal's cursor."""
    return text if text.isprintable() else ascii(text)[1:-1]
