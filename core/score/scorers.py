"""What the tape asks of a scorer, and of the ranks that score together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.score.windows import Rows, Window

Nats = NDArray[np.float32]
State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Windows that are scored together, one a row: x (B, T), y (B, L) behind x's last columns."""

    windows: Sequence[Window]
    x: Rows
    y: Rows


class Scorer(Protocol):
    """What the tape asks of a scorer."""

    adapts: bool  # whether `observe` does anything

    def score(self, block: Block) -> Nats:
        """Nats of each target, float32 (B, L), from a state that this does not change."""

    def observe(self, block: Block) -> None:
        """The block is scored: learn from it, or not."""

    def state(self) -> State:
        """All that its later nats depend on and that can change."""


class Ranks(Protocol):
    """Processes that score together; each of them runs the same tape."""

    rank: int
    world_size: int

    def gather(self, rows: Nats) -> Nats:
        """(world_size, ...): the rows of each rank, on every rank."""


class Alone:
    """One process."""

    rank = 0
    world_size = 1

    def gather(self, rows: Nats) -> Nats:
        """The same, as the only rank's."""
        return rows[None]


class Plain:
    """A scorer without a state."""

    adapts = False

    def __init__(self, nats_of: Callable[[Rows, Rows], Nats]) -> None:
        self._nats_of = nats_of

    def score(self, block: Block) -> Nats:
        """As the engine says."""
        return self._nats_of(block.x, block.y)

    def observe(self, block: Block) -> None:
        """Nothing is learned."""

    def state(self) -> State:
        """There is none."""
        return {}


def state_hash(scorer: Scorer) -> str:
    """sha256 of the scorer's state, names and shapes too."""
    digest = hashlib.sha256()
    for name, array in sorted(scorer.state().items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
