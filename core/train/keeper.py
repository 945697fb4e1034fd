"""Keeper: a run's checkpoints - when one is due, what it holds, how a run goes on from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.train.run_folder import RunFolder

Snapshot = dict[str, NDArray[Any] | int | float]  # the loop's flat state, arrays on the host


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


class Keeper:
    """Saves the state every so many steps or seconds, and when the run is asked to stop."""

    def __init__(
        self,
        folder: RunFolder | None,
        now: Callable[[], float],
        every_steps: int = 0,
        every_s: float = 0.0,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.snapshot = snapshot  # what the run begins with, if not with first weights
        self.asked_to_stop = ""  # why; set from outside, as by a signal
        self._folder = folder
        self._now = now
        self._every_steps = every_steps
        self._every_s = every_s
        self._saved_at = now()

    def stops(self) -> bool:
        """Whether the run was asked to stop."""
        return bool(self.asked_to_stop)

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps is to be saved."""
        if self.asked_to_stop:
            return True
        by_steps = self._every_steps > 0 and step > 0 and step % self._every_steps == 0
        return by_steps or 0 < self._every_s <= self._now() - self._saved_at

    def silent(self) -> Keeper:
        """The keeper of a rank that does not write: it stops and resumes with the others."""
        self._folder = None
        return self

    def save(self, snapshot: Snapshot) -> None:
        """Replace the checkpoint at once: a run killed here keeps the one before."""
        if self._folder is not None:
            self._folder.save_state({key: np.asarray(value) for key, value in snapshot.items()})
            self._saved_at = self._now()
