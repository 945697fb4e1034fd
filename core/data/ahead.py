"""Ahead: whatever is asked for step by step, with the next one made while this one is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """A pure function of the step, called one step early by a thread: its reads wait for nobody.

    An error of the early call is raised when its step is asked for, and not if it never is.
    """

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._next: tuple[int, Future[Made]] | None = None

    def take(self, step: int) -> Made:
        """make(step); any step may follow any other."""
        held, self._next = self._next, None
        ready = held is not None and held[0] == step
        made = held[1].result() if held and ready else self._make(step)
        self._next = (step + 1, self._thread.submit(self._make, step + 1))
        return made
