"""What a scorer answered when it was played over a stream, and where two answers differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_LOG = -60.0  # log-probabilities below are alike


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """Of one play. `error`: what it ended with, if it did not reach the end of the stream."""

    nats: Floats  # (N,) of each target when it was first scored; nan where it was not
    times: NDArray[np.int64]  # (N,) how often each was
    blocks: tuple[tuple[int, int], ...]  # first target and number, in the order they came
    states: tuple[str, ...]  # hash of the scorer's state as it gave each block; "": not known
    log_probs: Mapping[int, Floats]  # (V,) of those targets that were asked for
    byte_nats: Mapping[int, Floats] = field(default_factory=dict)  # of an asked target's bytes
    opaque: str = ""  # what of the state could not be hashed
    error: str = ""
    rule: str = ""  # that the tape named

    @property
    def adapts(self) -> bool:
        """Whether its state moved."""
        return len(set(self.states)) > 1


class Record:
    """Adds up the blocks of a play as they come."""

    def __init__(self, num_tokens: int) -> None:
        self._nats = np.full(num_tokens, np.nan)
        self._times = np.zeros(num_tokens, np.int64)
        self._blocks: list[tuple[int, int]] = []
        self._states: list[str] = []
        self.log_probs: dict[int, Floats] = {}

    def add(self, first: int, nats: NDArray[np.floating], state: str) -> None:
        """Targets first, first + 1, ...; the first score of each stands."""
        part = slice(first, first + len(nats))
        fresh = self._times[part] == 0
        self._nats[part][fresh] = nats[fresh]
        self._times[part] += 1
        self._blocks.append((first, len(nats)))
        self._states.append(state)

    def answer(
        self,
        error: str = "",
        rule: str = "",
        byte_nats: Mapping[int, Floats] | None = None,
        opaque: str = "",
    ) -> Answer:
        """What was added up so far, and how it ended."""
        return Answer(
            nats=self._nats,
            times=self._times,
            blocks=tuple(self._blocks),
            states=tuple(self._states),
            log_probs=self.log_probs,
            byte_nats=byte_nats or {},
            opaque=opaque,
            error=error,
            rule=rule,
        )


def apart(a: Floats, b: Floats) -> Floats:
    """How far each number is from its other; infinite where only one of the two is none."""
    with np.errstate(invalid="ignore"):
        found = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return np.nan_to_num(found, nan=np.inf)


def first_moved(a: Floats, b: Floats, first: int, stop: int, bound: float) -> int | None:
    """The first of targets first .. stop - 1 whose nats are more than `bound` apart."""
    moved = np.flatnonzero(apart(a[first:stop], b[first:stop]) > bound)
    return first + int(moved[0]) if len(moved) else None


def distributions_apart(a: Floats, b: Floats) -> float:
    """The largest difference of two distributions' log-probabilities."""
    if a.shape != b.shape:
        return float("inf")
    return float(apart(np.maximum(a, LEAST_LOG), np.maximum(b, LEAST_LOG)).max(initial=0.0))
