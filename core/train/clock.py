"""BudgetClock: what each phase of a run took, and when to stop; time comes in as a function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RECENT = 32  # laps that a prediction looks back on


class BudgetClock:
    """Seconds by phase: warmup, train, score, save, quantize, compress.

    A loop is timed by laps: all that lies between two laps is charged, but for the phases inside.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seconds: dict[str, float] = {}
        self._laps: deque[float] = deque(maxlen=RECENT)
        self._between_s = 0.0  # of the lap so far, before the last phase in it
        self._mark = now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge what runs inside to `name`, also when it raises."""
        start = self._now()
        self._between_s += start - self._mark
        try:
            yield
        finally:
            self._mark = self._now()
            self.charge(name, self._mark - start)

    def begin(self, lap_s: float) -> None:
        """The loop starts here; its first lap is expected to take lap_s."""
        self._between_s, self._mark = 0.0, self._now()
        self._laps.append(lap_s)

    def lap(self, name: str) -> float:
        """Charge the time since the last lap, phases left out, to `name`; its seconds so far."""
        now = self._now()
        spent = self._between_s + now - self._mark
        self._between_s, self._mark = 0.0, now
        self._laps.append(spent)
        self.charge(name, spent)
        return self.seconds(name)

    def charge(self, name: str, seconds: float) -> None:
        """Count seconds, as those that a run spent before it was resumed."""
        self._seconds[name] = self.seconds(name) + seconds

    def seconds(self, name: str) -> float:
        return self._seconds.get(name, 0.0)

    def next_s(self) -> float:
        """What the next lap may take: the longest of the recent ones."""
        return max(self._laps, default=0.0)

    def phases(self) -> dict[str, float]:
        return dict(self._seconds)


def out_of_time(budget_s: float, elapsed_s: float, step_s: float) -> bool:
    """Whether a step of step_s seconds would end after the budget; a budget of 0 has no end."""
    return budget_s > 0 and elapsed_s + step_s > budget_s
