"""The rule book: every rule, failure, condition and open question by its id, as data.

A new ruling is a row of failures.py, conditions.py or questions.py; nothing else has to know it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from core.data.findings import RULES as DATA_SOURCES
from core.data.findings import Finding, Status
from core.score.conditions import CONDITIONS
from core.score.failures import FAILURES
from core.score.questions import QUESTIONS
from core.score.rules import RULES, SCORER_RULES, VALIDATION_BYTES
from core.score.ruling import Rule, Ruling

RULINGS = (*FAILURES, *CONDITIONS, *QUESTIONS)
DATA_RULES = tuple(Rule(id=id, what=what, source=what) for id, what in DATA_SOURCES.items())
BOOK: dict[str, Rule] = {rule.id: rule for rule in (*RULES, *DATA_RULES, *SCORER_RULES, *RULINGS)}
PERIOD = "2026-03 to 2026-05"  # of the threads, where a day is not known
CANONICAL_BYTES = sum(VALIDATION_BYTES) / 2  # of the task's validation text, for ratios alone


def ruled(rule: str, status: Status, subject: str | Path, evidence: str) -> Finding:
    """What a row of the book says of a subject; nothing open can be said to pass."""
    row = BOOK[rule]
    assert row.status != "open" or status == "UNDECIDED", rule
    return Finding(
        rule=rule, status=status, subject=str(subject), evidence=evidence, source=row.source
    )


def open_questions(about: Literal["data", "logs", "scorer"]) -> list[Finding]:
    """What no report on these can decide, as findings."""
    asked = [row for row in RULINGS if row.status == "open" and about in row.about]
    return [ruled(row.id, "UNDECIDED", about, f"not decided: {row.what}") for row in asked]


def covering(rule: str) -> tuple[str, ...]:
    """The failures, conditions and questions that the findings of a rule speak of."""
    return tuple(row.id for row in RULINGS if rule in row.rules)


def looks_like(ratio: float) -> Ruling | None:
    """The failure that was seen to count this many times the true bytes."""
    for row in FAILURES:
        if row.ratio is not None and row.ratio[0] <= ratio <= row.ratio[1]:
            return row
    return None


def when(rule: Rule) -> str:
    """Its day, or the period of the threads; nothing where no thread made it."""
    return rule.date or ("" if rule.status == "toolkit" else PERIOD)


def entry(rule: Rule) -> dict[str, Any]:
    """A row as JSON data."""
    return {
        "id": rule.id,
        "text": rule.what,
        "date": when(rule),
        "source": rule.source,
        "status": rule.status,
        "rules": list(rule.rules) if isinstance(rule, Ruling) else [],
        "covers": list(covering(rule.id)),
        "ratio": list(rule.ratio) if isinstance(rule, Ruling) and rule.ratio else None,
    }
