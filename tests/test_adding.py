"""docs/adding.md is true: one of its examples is applied to a copy, the other is in the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.test_sabotage import copy, failures

ROOT = Path(__file__).resolve().parents[1]
GATE, NTK = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8").split("\n## ")[1:]
__all__ = ["copy"]  # the fixture


@dataclass(frozen=True)
class Hunk:
    """Lines of one file, before and after."""

    file: str
    before: str
    after: str
    added: int


def hunks(section: str) -> list[Hunk]:
    """What a page's diff says: a file's name, then lines that are kept, added, or `...`."""
    (block,) = re.findall(r"```diff\n(.*?)```", section, re.S)
    found = []
    for part in block.strip("\n").split("\n\n"):
        file, _, text = part.partition("\n")
        for piece in text.split("\n ...\n"):
            lines = piece.split("\n")
            kept = [line[1:] for line in lines if line.startswith(" ")]
            after = [line[1:] for line in lines]
            assert all(line[0] in " +" for line in lines), piece
            found.append(Hunk(file, "\n".join(kept), "\n".join(after), len(after) - len(kept)))
    return found


@pytest.mark.parametrize(("section", "engines"), [(GATE, 2), (NTK, 0)], ids=["gate", "ntk"])
def test_an_addition_is_small(section: str, engines: int) -> None:
    files = {hunk.file for hunk in hunks(section)}
    lines = sum(hunk.added for hunk in hunks(section))
    assert len(files) <= 7 and lines <= 40
    assert sum(file.startswith("backend_") for file in files) == engines
    title = section.split("\n", 1)[0]
    assert engines == 0 or f"{lines} lines" in title, lines


def test_what_is_there_is_there() -> None:
    for hunk in hunks(NTK):
        assert hunk.after in (ROOT / hunk.file).read_text(encoding="utf-8"), hunk
    for hunk in hunks(GATE):
        assert (ROOT / hunk.file).read_text(encoding="utf-8").count(hunk.before) == 1, hunk


@pytest.mark.slow
def test_what_is_added_works(copy: Path) -> None:
    """The case passes; with the gate forgotten in one engine it fails."""
    for hunk in hunks(GATE):
        path = copy / hunk.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(hunk.before, hunk.after), encoding="utf-8")
    tests = "tests/parity tests/test_mirror.py tests/tools/test_explain.py"
    chosen = "head_gate or mirror or every_field or row_is_true"
    assert failures(copy, f"{tests} -k {chosen}") == 0
    model = copy / "backend_mlx" / "model.py"
    model.write_text(model.read_text(encoding="utf-8").replace("2.0 * mx.sig", "mx.sig"), "utf-8")
    assert failures(copy, "tests/parity -k head_gate") == 1
