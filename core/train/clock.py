"""BudgetClock: how long each phase of a run took; time comes in as a function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RECENT = 32  # stays that a prediction looks back on


class BudgetClock:
    """Sums seconds by phase: warmup, train, quantize, compress, score."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seconds: dict[str, float] = {}
        self._recent_s: dict[str, deque[float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge what runs inside to `name`, also when it raises."""
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            self._seconds[name] = self.seconds(name) + spent
            self._recent_s.setdefault(name, deque(maxlen=RECENT)).append(spent)

    def seconds(self, name: str) -> float:
        return self._seconds.get(name, 0.0)

    def next_s(self, name: str) -> float:
        """What the next stay in a phase may cost: the longest of the recent ones."""
        return max(self._recent_s.get(name, ()), default=0.0)

    def phases(self) -> dict[str, float]:
        return dict(self._seconds)


def out_of_time(budget_s: float, elapsed_s: float, step_s: float) -> bool:
    """Whether a step of step_s seconds would end after the budget; a budget of 0 has no end."""
    return budget_s > 0 and elapsed_s + step_s > budget_s
