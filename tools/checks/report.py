"""A check as text for a terminal, and as markdown for a review thread; foreign words made plain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from core.data.findings import Finding
from core.score.rules import BY_ID, NOT_SEEN
from tools.checks.bytes import Item, sum_of
from tools.checks.case import Case

MAX_CHARACTERS = 400
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def as_text(findings: Sequence[Finding], items: Sequence[Item]) -> str:
    lines = [f"{'counts':<13}{'bytes':>12}  file"]
    for item in items:
        lines.append(f"{item.share:<13}{item.size:>12,}  {plain(item.path)} ({item.why})")
    lines.append("")
    for one in findings:
        said = f"{plain(one.subject)}: {plain(one.evidence)}"
        lines.append(f"{one.status:<9}  {one.rule:<16}  {said}")
    return "\n".join([*lines, tally(findings)])


def as_markdown(case: Case, findings: Sequence[Finding], items: list[Item]) -> str:
    """The verdict first, then what failed, what is open, the files, and what passed."""
    name = case.submission.fields.get("name") if case.submission else None
    lines = [f"## Check of {cell(str(name or case.folder.root.resolve().name))}", ""]
    lines += [f"**{tally(findings)}**", ""]
    for status, title in (("FAIL", "Failed"), ("UNDECIDED", "Not decided")):
        lines += _table(title, [one for one in findings if one.status == status])
    code, unclear = sum_of(items, "counted"), sum_of(items, "unclear")
    lines += [f"### Files: {code:,} bytes counted, {unclear:,} unclear", ""]
    lines += ["| file | bytes | counts | why |", "|---|--:|---|---|"]
    lines += [f"| {cell(x.path)} | {x.size:,} | {x.share} | {x.why} |" for x in items]
    lines.append("")
    lines += _table("Passed", [one for one in findings if one.status == "PASS"])
    lines += [f"Not seen by this check: {', '.join(NOT_SEEN)}."]
    return "\n".join(lines)


def tally(findings: Sequence[Finding]) -> str:
    counts = Counter(one.status for one in findings)
    return ", ".join(f"{counts[status]} {status}" for status in ("PASS", "FAIL", "UNDECIDED"))


def plain(text: str) -> str:
    """Foreign text on one line of a terminal."""
    return _CONTROL.sub("?", text)[:MAX_CHARACTERS]


def cell(text: str) -> str:
    """Foreign text in a table: code, in which nothing links, calls anyone or ends the cell."""
    inner = plain(text).replace("`", "'").replace("|", "\\|")
    return f"`{inner}`"


def _table(title: str, rows: Sequence[Finding]) -> list[str]:
    if not rows:
        return []
    lines = [f"### {title}", "", "| rule | subject | evidence | source |", "|---|---|---|---|"]
    for one in rows:
        asked = f"**{one.rule}**: {BY_ID[one.rule].what}"
        lines.append(f"| {asked} | {cell(one.subject)} | {cell(one.evidence)} | {one.source} |")
    return [*lines, ""]
