"""The protocol of every ratio: forms of one piece of work in alternating blocks, in one process.

After a soak, the first form against itself (A A' A' A ...), which says what the machine's noise is;
then the forms in turn (A B, B A ...). A block's value is the median of its steps. A ratio counts
where it is further from 1 than any ratio of the form to itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

Launch = Callable[[], Any]  # starts one step and gives what settling it waits for
Settle = Callable[[Any], Any]  # waits for it
Drain = Callable[[], Any]  # waits for all that is left on the device
Clock = Callable[[], float]


CLOCKS: dict[str, Clock] = {  # process: the work of its threads, whoever else is on the machine
    "wall": time.perf_counter,
    "process": time.process_time,
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How often and how long."""

    blocks: int = 5  # of each form
    steps: int = 5  # of a block
    soak_s: float = 5.0  # of all forms in turn, before anything counts
    now: Clock = time.perf_counter

    def __post_init__(self) -> None:
        for name, value in (("blocks", self.blocks), ("steps", self.steps)):
            if value < 1:
                raise ValueError(f"{name} {value}: at least 1 is needed")
        if self.soak_s < 0:
            raise ValueError(f"soak {self.soak_s} s: it is not below 0")

    @property
    def clock(self) -> str:
        """The name of `now`."""
        return next((name for name, clock in CLOCKS.items() if clock is self.now), "other")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The middle and the ends of some blocks or ratios."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Seconds of a step by form, a number a block; `itself` is the first form against itself."""

    seconds: Mapping[str, list[float]]
    itself: list[float]  # ratios

    def step_s(self, form: str) -> Spread:
        return spread(self.seconds[form])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times as fast the second is, block by block."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return spread([one / other for one, other in pairs])

    def noise(self) -> float:
        """How far the first form was from itself, at most: 0.02 is two in a hundred."""
        return max(abs(ratio - 1.0) for ratio in self.itself)

    def counts(self, ratio: float) -> bool:
        return abs(ratio - 1.0) > self.noise()


def spread(values: list[float]) -> Spread:
    return Spread(median=median(values), low=min(values), high=max(values))


def nothing() -> None:
    """Settling has waited for all."""


def in_turns(
    forms: Mapping[str, Launch], settle: Settle, rules: Rules, drain: Drain = nothing
) -> Turns:
    """Time the forms; the first of them is A."""
    names = list(forms)
    soak(forms, settle, rules)
    drain()
    again: list[float] = []
    for number in range(rules.blocks):
        one, other = (block(forms[names[0]], settle, rules, drain) for _ in range(2))
        again.append(one / other if number % 2 else other / one)
    spent: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rules.blocks):
        for name in names if number % 2 == 0 else names[::-1]:
            spent[name].append(block(forms[name], settle, rules, drain))
    return Turns(seconds=spent, itself=again)


def soak(forms: Mapping[str, Launch], settle: Settle, rules: Rules) -> None:
    """A step of each, which compiles, and more until the time is over."""
    started = time.perf_counter()
    while True:
        for launch in forms.values():
            settle(launch())
        if time.perf_counter() - started >= rules.soak_s:
            return


def block(launch: Launch, settle: Settle, rules: Rules, drain: Drain = nothing) -> float:
    """The median step of one block, in seconds.

    As in a run the host starts a step before it waits for the one before; a step's time is from
    where that one was done to where it is. Nothing of a block is left to the one behind it.
    """
    marks, waiting = [rules.now()], launch()
    for _ in range(rules.steps - 1):
        following = launch()
        settle(waiting)
        marks.append(rules.now())
        waiting = following
    settle(waiting)
    drain()
    marks.append(rules.now())
    return median([later - earlier for earlier, later in pairwise(marks)])
