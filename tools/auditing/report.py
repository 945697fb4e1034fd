"""Findings of an audit as JSON, as text, and as markdown for a review thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from core.data.findings import Finding
from core.score.rules import BY_ID, SCORER_BY_ID
from core.score.ruling import Rule
from tools.checks.report import cell, plain, tally

STATUSES = {"FAIL": "Failed", "UNDECIDED": "Not decided", "PASS": "Passed"}


def as_fields(findings: Sequence[Finding], about: Mapping[str, Any]) -> dict[str, Any]:
    """One JSON object."""
    passes = not any(one.status == "FAIL" for one in findings)
    return {**about, "passes": passes, "findings": [asdict(one) for one in findings]}


def as_text(findings: Sequence[Finding]) -> str:
    """A line a finding, what fails first."""
    lines = [
        f"{one.status:<9}  {one.rule:<20}  {plain(one.subject)}: {plain(one.evidence)}"
        for one in in_order(findings)
    ]
    return "\n".join([*lines, tally(findings)])


def as_markdown(findings: Sequence[Finding], title: str, about: Mapping[str, Any]) -> str:
    """The verdict first, then what failed with its counter-examples, what is open, what passed."""
    lines = [f"## {title}", "", f"**{tally(findings)}**", ""]
    lines += [f"- {name}: {cell(str(value))}" for name, value in about.items()]
    for status, head in STATUSES.items():
        rows = [one for one in findings if one.status == status]
        if rows:
            lines += ["", f"### {head}", "", "| rule | subject | evidence | source |"]
            lines += ["|---|---|---|---|", *(_row(one) for one in rows)]
    return "\n".join(lines)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """What fails first."""
    return sorted(findings, key=lambda one: list(STATUSES).index(one.status))


def _row(one: Finding) -> str:
    rules: dict[str, Rule] = {**BY_ID, **SCORER_BY_ID}
    asked = f"**{one.rule}**: {rules[one.rule].what}" if one.rule in rules else f"**{one.rule}**"
    return f"| {asked} | {cell(one.subject)} | {cell(one.evidence)} | {one.source} |"
