"""Every environment variable that the code reads is named where the table of them stands."""

from __future__ import annotations

import re
from pathlib import Path

from tools import environment

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "backend_torch", "backend_mlx", "tools")
READ = re.compile(
    r'environ(?:\.get|\.setdefault)?[\[(]"([A-Z_]+)"|"([A-Z_]+)" (?:not )?in \w*environ'
)


def names_read() -> dict[str, Path]:
    """By the text, so that what a bundle's own text reads is there too."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    found = [(name, p) for p in paths for pair in READ.findall(p.read_text()) for name in pair]
    return {name: path for name, path in found if name}


def test_the_first_lines_name_every_variable_that_is_read() -> None:
    said = set(re.findall(r"\b[A-Z_]{4,}\b", environment.__doc__ or ""))
    found = names_read()
    assert {"MATCHED_FINEWEB_REPO_ID", "GOLF_DEVICE", "SEED"} <= set(found)
    untold = set(found) - said - set(environment.KNOWN)
    assert not untold, {name: str(found[name].relative_to(ROOT)) for name in untold}
