"""What every row of the rule book says: text, source, by whom, when; and what looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# By whom a rule was made. relayed: an organiser's, second hand; open: nobody has decided it.
Authority = Literal["organiser", "relayed", "community", "toolkit", "open"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: how it is called, what it asks, its source, by whom it was made, and when."""

    id: str
    what: str
    source: str
    status: Authority = "toolkit"
    date: str = ""  # a day, where one is known


@dataclass(frozen=True, kw_only=True)
class ScorerRule(Rule):
    """A rule of scoring."""


@dataclass(frozen=True, kw_only=True)
class Ruling(Rule):
    """A known failure, a condition or an open question, and what looks at it (core/score/book.py).

    `ratio`: how many times the true bytes were counted where the failure was seen.
    """

    rules: tuple[str, ...] = ()  # of these are the findings; none: nothing here can see it
    ratio: tuple[float, float] | None = None
    about: tuple[Literal["data", "logs", "scorer"], ...] = ()  # reports that name it, while open
