"""Keeper: a run's checkpoints - when one is due, what it holds, how a run goes on from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Weights
from core.train.run_folder import RunFolder

Snapshot = dict[str, NDArray[Any] | int | float]  # the loop's flat state, arrays on the host
Ask = Callable[..., None]  # between two parts of a long work: raises Stopped where it is to end
Made = TypeVar("Made")

DONE, FAILED = 1.0, 2.0  # what the rank that works alone tells those that wait


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
        goes_on: bool = False,
        resumes: bool = False,
    ) -> None:
        self.snapshot = snapshot  # what the run begins with, if not with first weights
        self.goes_on = goes_on or snapshot is not None  # in the folder of a run that was begun
        self.resumes = resumes  # whether ranks were told to go on, found they a checkpoint or not
        self.asked_to_stop = ""  # why; set from outside, as by a signal
        self._folder = folder
        self._now = now
        self._every_steps = every_steps
        self._every_s = every_s
        self._saved_at = now()
        self._data: dict[str, str] = {}

    def hold_to(self, data: dict[str, str]) -> None:
        """What the run's data is; ValueError where the checkpoint was made on other data."""
        self._data = data
        if self._folder is not None and self.snapshot is not None:
            self._folder.check_data(data)

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

    def save(self, snapshot: Callable[[], Snapshot]) -> bool:
        """Replace the checkpoint at once: a run killed here keeps the one before.

        Whether there is a place to keep it.
        """
        held = snapshot()  # of all ranks, whether they write or not: each may have a part of it
        self._saved_at = self._now()
        if self._folder is None:
            return False
        arrays = {key: np.asarray(value) for key, value in held.items()}
        self._folder.save_state(arrays, self._data)
        return True

    def save_weights(self, weights: Weights) -> None:
        """What was trained, before anything that follows can fail or be stopped."""
        if self._folder is not None:
            self._folder.save_weights(weights)

    def forget(self) -> None:
        """The run is done: the checkpoint that nobody asked for goes."""
        if self._folder is not None and not (self._every_steps or self._every_s):
            self._folder.state_path.unlink(missing_ok=True)


class Lead:
    """Work of the first rank alone, or of all; between its parts all agree whether to stop."""

    def __init__(self, group: Any, keeper: Keeper) -> None:
        self._group = group
        self._keeper = keeper
        if keeper.resumes:
            self._begin_alike()

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return not self._group.rank

    def together(self, work: Callable[[], Made]) -> Made:
        """work() of every rank: where it fails on one, the others do not wait for it for ever."""
        try:
            made = work()
        except Exception:
            self._group.max(FAILED)
            raise
        if self._group.max(0.0) == (FAILED,):
            raise ValueError("another rank failed; it says why")
        return made

    def alone(self, work: Callable[[Ask], Made]) -> Made | None:
        """work(ask) on the first rank; the others answer each `ask` until it is done: None there.

        Raises Stopped on every rank, at the same `ask`, once any of them was asked to stop.
        """
        if not self.first:
            self._wait()
            return None
        try:
            made = work(self.ask)
        except Stopped:
            raise
        except Exception:
            self._group.max(0.0, FAILED)
            raise
        self._group.max(0.0, DONE)
        return made

    def share(self, data: bytes | None) -> bytes:
        """The first rank's, on every rank."""
        shared: bytes = self._group.share(data or b"")
        return shared

    def ask(self, *_: object) -> None:
        """Between two parts of what all ranks do together: Stopped on all of them, or on none."""
        stop, _state = self._group.max(self._keeper.stops(), 0.0)
        if stop:
            raise Stopped(self._keeper.asked_to_stop)

    def _begin_alike(self) -> None:
        """ValueError on every rank where one of them has another checkpoint, or none."""
        held = self._keeper.snapshot
        step = -1 if held is None else int(held["step"])
        latest, negated = self._group.max(step, -step)
        if latest != -negated:
            found = "no checkpoint" if held is None else f"one of step {step}"
            raise ValueError(
                f"this rank found {found}, the others' are of step {-negated:.0f} to {latest:.0f} "
                "(-1: none): every machine must read the same checkpoint; keep --runs on a disk "
                "that all of them share"
            )

    def _wait(self) -> None:
        state = 0.0
        while state != DONE:
            stop, state = self._group.max(self._keeper.stops(), 0.0)
            if state == FAILED:
                raise ValueError("the first rank failed while the others waited; it says why")
            if stop and state != DONE:
                raise Stopped(self._keeper.asked_to_stop)


def check_snapshot(snapshot: Snapshot, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless a checkpoint has all of this run's state, in the same shapes."""
    missing, extra = sorted(state.keys() - snapshot.keys()), sorted(snapshot.keys() - state.keys())
    advice = (
        "remove checkpoint.safetensors to begin again at step 0, or put a whole one in its place"
    )
    if missing or extra:
        raise ValueError(
            f"the checkpoint does not fit the state of this run: missing {missing[:3] or 'none'}, "
            f"unknown {extra[:3] or 'none'}; {advice}"
        )
    for key, value in state.items():
        found, expected = np.shape(snapshot[key]), tuple(getattr(value, "shape", ()))
        if found != expected:
            raise ValueError(
                f"the checkpoint's {key} has shape {found}, expected {expected}; {advice}"
            )
