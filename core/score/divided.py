"""A model that learns on the way, on several ranks: the rows of each block are divided.

A document's adapters are its rank's alone, so nothing of them is exchanged but nats. What all
weights learn, every rank learns for itself, from the same tokens in the same steps: what is shared
is the scoring, and no gradient has to be.
"""

from __future__ import annotations

import numpy as np

from core.score.adapting import Arrays, Learner, Marks
from core.score.scorers import Nats, Ranks, State
from core.score.windows import Rows


class Divided:
    """A learner of the rows rank, rank + world_size, ... whose nats are those of all rows.

    Every rank has to be asked the same. Rows that go on are the first ones, of all and of a rank.
    """

    def __init__(self, learner: Learner, ranks: Ranks) -> None:
        self._learner, self._rank, self._ranks = learner, ranks.rank, ranks
        self._graded = False  # whether own rows have a loss to learn from
        self.descend, self.still = learner.descend, learner.still

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
        """Nats of each target, (B, L), each row's by its rank."""
        mine = slice(self._rank, None, self._ranks.world_size)
        most = -(-len(x) // self._ranks.world_size)
        held = np.zeros((most, *y.shape[1:]), np.float32)
        self._graded = marks is not None and len(x[mine]) > 0
        if len(x[mine]):
            own = None if marks is None else np.ascontiguousarray(marks[mine])
            inputs, targets = np.ascontiguousarray(x[mine]), np.ascontiguousarray(y[mine])
            held[: len(inputs)] = self._learner.nats(inputs, targets, own)
        given = self._ranks.gather(held)
        return np.ascontiguousarray(given.swapaxes(0, 1).reshape(-1, *y.shape[1:])[: len(y)])

    def learn(self) -> None:
        """A step on the adapters of own rows."""
        if self._graded:
            self._learner.learn()

    def reset(self, rows: int, warm: bool) -> None:
        """Own ones of so many sets; a rank without any has one that nothing reads."""
        self._learner.reset(self._own(rows), warm)

    def trim(self, rows: int) -> None:
        """Own ones of the first so many rows go on."""
        self._learner.trim(self._own(rows))

    def state(self) -> State:
        """That of this rank."""
        return self._learner.state()

    def lasting(self) -> Arrays:
        """None, but ValueError: each rank's documents have taught it something else."""
        raise ValueError(
            f"{self._ranks.world_size} ranks and a model that learns: what it has learned is kept, "
            "and gone on from, by one rank alone"
        )

    def go_on(self, held: Arrays) -> None:
        """ValueError, for the same reason."""
        self.lasting()

    def _own(self, rows: int) -> int:
        return max(1, len(range(self._rank, rows, self._ranks.world_size)))
