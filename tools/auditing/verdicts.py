"""Findings of an audit as text for a terminal and as markdown for a review thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from core.data.findings import Finding
from core.score.book import BOOK, covering
from tools.checks.report import cell, plain, tally

STATUSES = ("FAIL", "UNDECIDED", "PASS")
SHOWN = 60  # findings of one rule and status
TITLES = {"FAIL": "Failed", "UNDECIDED": "Not decided", "PASS": "Passed"}

Row = Mapping[str, Any]


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """What fails first, in the order of the book."""
    order = {id: at for at, id in enumerate(BOOK)}
    return sorted(findings, key=lambda one: (STATUSES.index(one.status), order[one.rule]))


def worst(findings: Sequence[Finding]) -> str:
    return min((one.status for one in findings), key=STATUSES.index, default="UNDECIDED")


def failed(findings: Sequence[Finding]) -> bool:
    return any(one.status == "FAIL" for one in findings)


def as_text(rows: Sequence[Row], findings: Sequence[Finding]) -> str:
    """The table, then every finding that is no PASS, then how many there were of each."""
    lines = [*table(rows), ""] if rows else []
    for one in _shown([one for one in findings if one.status != "PASS"]):
        said = f"{plain(one.subject)}: {plain(one.evidence)}"
        lines.append(f"{one.status:<9}  {named(one.rule):<24}  {said} ({one.source})")
    return "\n".join([*lines, tally(findings)])


def as_markdown(title: str, rows: Sequence[Row], findings: Sequence[Finding]) -> str:
    """The verdict, the table, and the findings by status, each with its rule and source."""
    lines = [f"## {title}", "", f"**{tally(findings)}**", ""]
    if rows:
        names = list(rows[0])
        lines += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(cell(shown(*x)) for x in row.items())} |" for row in rows]
        lines.append("")
    for status in STATUSES:
        held = _shown([one for one in findings if one.status == status])
        if held:
            lines += [f"### {TITLES[status]}", "", "| rule | subject | evidence | source |"]
            lines += ["|---|---|---|---|", *(_row(one) for one in held), ""]
    return "\n".join(lines).rstrip()


def table(rows: Sequence[Row]) -> list[str]:
    """Columns as wide as what stands in them."""
    names = list(rows[0])
    held = [names, *([plain(shown(name, row[name])) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in held) for at in range(len(names))]
    right = [isinstance(rows[0][name], int | float) for name in names]
    return [
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in held
    ]


def shown(name: str, value: Any) -> str:
    """A value of a table: scores in full, seconds to the millisecond."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if name.endswith("_s") else f"{value:.8f}"
    return f"{value:,}" if isinstance(value, int) and value > 99_999 else str(value)


def named(rule: str) -> str:
    """A rule with the failures and conditions that it stands for."""
    behind = [one for one in covering(rule) if one != rule]
    return f"{rule} [{' '.join(behind)}]" if behind else rule


def _shown(findings: Sequence[Finding]) -> list[Finding]:
    """So many of a rule as anybody reads, the last with how many more there are."""
    counts: Counter[tuple[str, str]] = Counter()
    kept = []
    for one in findings:
        counts[one.rule, one.status] += 1
        if counts[one.rule, one.status] <= SHOWN:
            kept.append(one)
    for (rule, status), count in counts.items():
        if count > SHOWN:
            last = max(at for at, x in enumerate(kept) if (x.rule, x.status) == (rule, status))
            said = f"{count - SHOWN:,} more findings, all of them in --json"
            more = vars(kept[last]) | {"subject": ".", "evidence": said}
            kept.insert(last + 1, Finding(**more))
    return kept


def _row(one: Finding) -> str:
    asked = f"**{named(one.rule)}**: {BOOK[one.rule].what}"
    return f"| {asked} | {cell(one.subject)} | {cell(one.evidence)} | {one.source} |"
