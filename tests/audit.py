"""docs/audit.md, printed: what the auditor tests and how it judged what was planted for it.

python -m tests.audit > docs/audit.md
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from core.score.conditions import CONDITIONS
from core.score.rules import SCORER_RULES
from tests.planted import ELSEWHERE, SCORERS, audited, failed, row, shards
from tests.tools import planted_data, planted_logs

TEXT = Path(__file__).with_name("audit.txt")
TABLE_HEAD = "| planted | reference | expected | FAIL |\n|---|---|---|---|"


def rules() -> str:
    """The rules of scoring and who made them."""
    rows = [f"| {one.id} | {one.what} | {one.source} | {one.status} |" for one in SCORER_RULES]
    return "\n".join(["| rule | what it asks | source | by |", "|---|---|---|---|", *rows])


def confusion() -> str:
    """Every planted scorer with the rules that it failed, and how many were judged rightly."""
    lines, named, passed = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        text = shards(place)
        for planted in SCORERS:
            found = failed(audited(planted, place, text))
            lines.append(row(planted, found))
            named += bool(planted.rule) and planted.rule in found
            passed += not planted.rule and not found
            print(lines[-1], file=sys.stderr)
    cheats = sum(bool(planted.rule) for planted in SCORERS)
    said = f"{named} of {cheats} cheats are named by their rule, "
    said += f"{passed} of {len(SCORERS) - cheats} honest scorers fail none."
    return "\n".join([TABLE_HEAD, *lines, "", said])


def planted_as(id: str) -> list[str]:
    """What is planted for a condition, in any of the lists."""
    held = [one.name for one in SCORERS if id in one.rows.split()]
    for module in (planted_data, planted_logs):
        held += [one.name for one in module.PLANTED if one.names == id]
    return held


def conditions() -> str:
    """Every condition with what is planted for it, or why nothing is."""
    lines = ["| condition | what it asks | planted as |", "|---|---|---|"]
    for one in CONDITIONS:
        said = "; ".join(planted_as(one.id)) or ELSEWHERE[one.id]
        lines.append(f"| {one.id} | {one.what} | {said} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    text = TEXT.read_text(encoding="utf-8")
    text = text.replace("RULES\n", rules() + "\n").replace("SCORERS\n", confusion() + "\n")
    return text.replace("\nCONDITIONS\n", f"\n{conditions()}\n")


if __name__ == "__main__":
    print(page(), end="")
