"""Counted: the bytes of bundles that were made before, kept by all that they are made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from core.arch.fields import to_plain
from core.train.recipe import Recipe
from tools.environment import variables

ROOT = Path(__file__).resolve().parents[2]
MADE_FROM = ("core", "backend_torch", "tools/bundling")
VERSIONS_KEPT = 8  # of the code; the oldest ones go


def counted(recipe: Recipe, kind: str, make: Callable[[], int]) -> int:
    """make(), or what it gave when this user's machine made the same from the same code.

    Making a bundle takes seconds, and its size is asked for by every plan and every run.
    """
    plain = json.dumps([to_plain(recipe), kind], sort_keys=True)
    place = _folder() / _code() / hashlib.sha256(plain.encode()).hexdigest()
    try:
        return int(place.read_text())
    except (OSError, ValueError):
        found = make()
    with suppress(OSError):  # a home that cannot be written costs the seconds, not the answer
        _keep(place, found)
    return found


def _folder() -> Path:
    named = variables().get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "golf" / "code_bytes"


@cache
def _code() -> str:
    """sha256 of the code that goes into a bundle and of what makes one."""
    digest = hashlib.sha256(f"{sys.version} {version('python-minifier')}".encode())
    for file in sorted(path for part in MADE_FROM for path in (ROOT / part).rglob("*.py")):
        digest.update(f"\n{file.relative_to(ROOT)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _keep(place: Path, found: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{os.getpid()}")
    part.write_text(str(found))
    part.replace(place)
    versions = sorted(place.parent.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for old in versions[:-VERSIONS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
