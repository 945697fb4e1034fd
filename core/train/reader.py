"""StepReader: reads each step's loss one step late, so that the device never waits for the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsFloat

from core.train.events import Events, Numbers, log_bad_step, log_step
from core.train.recipe import Recipe
from core.train.schedules import START, Knobs

MOST_BAD_STEPS = 3  # in a row, before a run is given up


@dataclass(frozen=True)
class _Told:
    numbers: Numbers  # behind the step
    loss: SupportsFloat  # on the device; to read it is to wait for its step
    dials: Knobs


class Diverged(ValueError):
    """Too many steps in a row without a finite loss."""


class StepReader:
    """Takes every step as it is launched; reports it when it is settled."""

    def __init__(self, recipe: Recipe, events: Events, give_up: Callable[[], object]) -> None:
        self.bad_steps = 0  # in a row; none of them was applied
        self._recipe = recipe
        self._events = events
        self._give_up = give_up
        self._told: _Told | None = None

    def tell(self, state: Numbers, loss: SupportsFloat, dials: Knobs) -> None:
        """The step that led to `state` is on its way; a loss of NaN says it was not applied."""
        assert self._told is None, "settle the step before"
        self._told = _Told({name: state[name] for name in START}, loss, dials)

    def settle(self) -> None:
        """Wait for the step that was told last, and report it."""
        told, self._told = self._told, None
        if told is None:
            return
        loss = float(told.loss)
        if math.isfinite(loss):
            self.bad_steps = 0
            log_step(self._events, self._recipe, told.numbers, loss, told.dials)
            return
        self.bad_steps += 1
        log_bad_step(self._events, self._recipe, told.numbers, told.dials, self.bad_steps)
        if self.bad_steps >= MOST_BAD_STEPS:
            self._give_up()
            raise Diverged(
                f"the loss or a gradient was NaN or infinite in {self.bad_steps} steps in a row, "
                f"the last one step {told.numbers['step']}; none was applied, and what was reached "
                f"before is in the checkpoint. Lower the rates (optim.matrix_lr, optim.embed_lr), "
                f"set optim.grad_clip_norm, or look at the data of those steps"
            )
