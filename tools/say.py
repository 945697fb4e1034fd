"""How the command talks: data on stdout, talk on stderr, usage errors apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class UsageError(ValueError):
    """The command line cannot be understood; exit code 2."""


def complain(message: str) -> None:
    print(f"golf: {message}", file=sys.stderr)


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def require_folder(file: Path) -> None:
    """UsageError unless a file can be written there."""
    if not file.parent.is_dir():
        raise UsageError(f"{file}: there is no folder {file.parent}; make it or name another")
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name a file to write")


def print_json(fields: Mapping[str, Any]) -> None:
    """One object on stdout."""
    print(json.dumps(fields, indent=2))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Aligned `name value` lines on stdout; what holds others is told field by field."""
    flat = _flat(fields)
    width = max(len(name) for name in flat)
    for name, value in flat.items():
        print(f"{name:<{width}}  {_shown(name, value)}".rstrip())


def _flat(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _shown(name: str, value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.8f}" if "bpb" in name or "loss" in name else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
