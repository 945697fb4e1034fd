"""How the command talks: data on stdout, talk on stderr, usage errors apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


class UsageError(ValueError):
    """The command line cannot be understood; exit code 2."""


def complain(message: str) -> None:
    print(f"golf: {message}", file=sys.stderr)


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def print_json(fields: Mapping[str, Any]) -> None:
    """One object on stdout."""
    print(json.dumps(fields, indent=2))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Aligned `name value` lines on stdout; whole numbers with thousands separators."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        print(f"{name:<{width}}  {shown}")
