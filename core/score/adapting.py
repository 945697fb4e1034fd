"""Score first, then learn: the scorers that adapt, over what an engine computes for them.

The order - score, commit, observe - is the tape's; what learns from which tokens is here, once; an
engine only multiplies matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.data.shards import Tokens
from core.score.adaptation import Adaptation, Sgd
from core.score.courses import Chunks, Documents, behind
from core.score.scorers import Block, Nats, State
from core.score.windows import Rows

Marks = NDArray[np.float32]  # of each target in the loss sum(nats * marks)
Look = Callable[[int, int], Tokens]  # a part of the stream, by the tape
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """What a scorer that adapts had learned behind a part of its plan that others follow."""

    arrays: Arrays
    state_hash: str  # of the scorer as it was


class Learner(Protocol):
    """A model as an engine adapts it: numpy in, numpy out."""

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
        """Nats of each target, (B, L), beside adapters where it has any: row b with set b.

        marks: (B, L); the loss sum(nats * marks) is kept for `learn`.
        """

    def learn(self) -> None:
        """A step of AdamW on the adapters, by the loss that was kept."""

    def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
        """A step on all weights without adapters, by the loss sum(nats * marks)."""

    def still(self) -> None:
        """Forget the momentum of the weights."""

    def reset(self, rows: int, warm: bool) -> None:
        """So many sets of adapters that add nothing; warm: their A is what the rows had."""

    def trim(self, rows: int) -> None:
        """Only the first so many rows go on."""

    def state(self) -> State:
        """Checksums of all that can change."""

    def lasting(self) -> Arrays:
        """Copies of what goes on behind a chunk, or a batch of documents: not what is reset."""

    def go_on(self, held: Arrays) -> None:
        """Go on from there, where as many adapters are reset."""


class ScoreFirst:
    """All weights learn from each chunk behind its score; the last one teaches nobody."""

    adapts = True

    def __init__(self, learner: Learner, plan: Chunks, sgd: Sgd, seq_len: int, look: Look) -> None:
        self._learner, self._plan, self._turns = learner, plan, iter(plan)
        self._sgd, self._seq_len, self._look = sgd, seq_len, look
        self._chunk, self._begins, self._ends = 0, 0, 0  # the chunk at hand, and its inputs
        self._whole = False  # whether a chunk was done just now, and others follow

    def score(self, block: Block) -> Nats:
        """By the weights as the chunks before have left them."""
        return self._learner.nats(block.x, block.y)

    def observe(self, block: Block) -> None:
        """At the end of a chunk the weights learn from it."""
        self._ends = max(self._ends, *(window.stop - 1 for window in block.windows))
        ends, sizes = next(self._turns).ends, self._plan.sizes
        self._whole = ends and self._chunk + 1 < len(sizes)
        if not ends:
            return
        if self._whole:
            tokens = self._look(self._begins, self._ends + 1)
            lr = self._sgd.lr_at(self._begins, sum(sizes))
            train(self._learner, tokens[:-1], tokens[1:], self._seq_len, self._sgd, lr)
        self._chunk, self._begins = self._chunk + 1, self._ends

    def state(self) -> State:
        """The weights and their momentum, and how far it is."""
        return {**self._learner.state(), "at": self._at()}

    def lasting(self) -> Arrays | None:
        """What the next chunk starts from; None within a chunk."""
        return {**self._learner.lasting(), "at": self._at()} if self._whole else None

    def go_on(self, held: Arrays) -> None:
        """Go on with the next chunk."""
        self._chunk, self._begins, self._ends = map(int, held["at"])
        self._turns = behind(self._plan, self._chunk)
        put_back(self._learner, held)

    def _at(self) -> NDArray[np.int64]:
        return np.array([self._chunk, self._begins, self._ends], np.int64)


class PerDocument:
    """Each document has adapters, which learn from each of its blocks but the last.

    Where the adaptation has phases, all weights learn from the documents behind them.
    """

    adapts = True

    def __init__(
        self, learner: Learner, plan: Documents, how: Adaptation, seq_len: int, look: Look
    ) -> None:
        self._learner, self._plan, self._turns = learner, plan, iter(plan)
        self._how, self._seq_len, self._look = how, seq_len, look
        phases = how.phased.boundaries(len(plan.order)) if how.descends else ()
        self._boundaries = list(phases)
        self._turn, self._batches = next(self._turns), 0
        self._whole = False  # whether a batch was done just now, and others follow
        learner.reset(plan.sizes[0], warm=False)

    def score(self, block: Block) -> Nats:
        """Each row with the adapters of its document."""
        return self._learner.nats(block.x, block.y, self._marks(block))

    def observe(self, block: Block) -> None:
        """The documents that go on learn; behind the last block of all, others take the slots."""
        turn, self._turn = self._turn, next(self._turns, self._turn)
        self._whole = turn.ends and self._batches + 1 < len(self._plan.sizes)
        if turn.learns:
            self._learner.learn()
        if not turn.ends:
            self._learner.trim(turn.learns)
            return
        self._batches += 1
        if self._whole:
            phased = self._phase(sum(self._plan.sizes[: self._batches]))
            warm = self._how.lora.warm_a and not phased
            self._learner.reset(self._plan.sizes[self._batches], warm)

    def state(self) -> State:
        """The adapters, the weights where they learn, and how far it is."""
        return {**self._learner.state(), "at": self._at()}

    def lasting(self) -> Arrays | None:
        """What the next batch of documents starts from; None within a batch."""
        return {**self._learner.lasting(), "at": self._at()} if self._whole else None

    def go_on(self, held: Arrays) -> None:
        """Go on with the next batch of documents."""
        self._batches, ahead = map(int, held["at"])
        self._turns = behind(self._plan, self._batches)
        self._turn = next(self._turns)
        self._boundaries = self._boundaries[len(self._boundaries) - ahead :]
        self._learner.reset(self._plan.sizes[self._batches], warm=False)
        put_back(self._learner, held)

    def _at(self) -> NDArray[np.int64]:
        return np.array([self._batches, len(self._boundaries)], np.int64)

    def _marks(self, block: Block) -> Marks | None:
        """The mean over the targets of each document that goes on, and these added up."""
        if not self._turn.learns:
            return None
        marks = np.zeros(block.y.shape, np.float32)
        for row, window in enumerate(block.windows[: self._turn.learns]):
            marks[row, : window.count] = 1.0 / window.count
        return marks

    def _phase(self, scored: int) -> bool:
        """Learn from the documents before each boundary that is reached; whether there was one."""
        due = [boundary for boundary in self._boundaries if boundary <= scored]
        self._boundaries = self._boundaries[len(due) :]
        for boundary in due:
            parts = [self._look(*self._plan.inputs_of(d)) for d in self._plan.order[:boundary]]
            inputs = np.concatenate([part[:-1] for part in parts])
            targets = np.concatenate([part[1:] for part in parts])
            self._learner.still()
            self._descend(inputs, targets)
        return bool(due)

    def _descend(self, inputs: Tokens, targets: Tokens) -> None:
        sgd = self._how.sgd
        for at in range(0, len(inputs), sgd.chunk_tokens):
            x, y = (part[at : at + sgd.chunk_tokens] for part in (inputs, targets))
            train(self._learner, x, y, self._seq_len, sgd, sgd.lr_at(at, len(inputs)))


def put_back(learner: Learner, held: Arrays) -> None:
    """Restore the learner; ValueError unless the arrays are those that it could have left."""
    own, given = learner.lasting(), {n: a for n, a in held.items() if n != "at"}
    expected, found = ({n: (a.dtype, a.shape) for n, a in part.items()} for part in (own, given))
    if found != expected:
        name = min(n for n in found | expected if found.get(n) != expected.get(n))
        raise ValueError(
            f"what was learned has for {name} {found.get(name)}, the model {expected.get(name)}"
        )
    learner.go_on(given)


def train(
    learner: Learner, inputs: Tokens, targets: Tokens, seq_len: int, sgd: Sgd, lr: float
) -> None:
    """Some epochs over rows of seq_len tokens, batch_seqs a step; inputs, targets: (N,)."""
    for _ in range(sgd.epochs):
        for step in in_rows(inputs, targets, seq_len, sgd.batch_seqs):
            learner.descend(*step, lr)


def in_rows(
    inputs: Tokens, targets: Tokens, seq_len: int, size: int
) -> Iterator[tuple[Rows, Rows, Marks]]:
    """x, y and marks of each step, (size or fewer, seq_len); the end of the last row is no loss."""
    span = size * seq_len
    for at in range(0, len(inputs), span):
        x, y = inputs[at : at + span], targets[at : at + span]
        shape = -(-len(x) // seq_len), min(seq_len, len(x))
        marks = np.full(len(x), 1.0 / len(x), np.float32)
        yield _padded(x, shape, np.int32), _padded(y, shape, np.int32), _padded(marks, shape)


def _padded(values: NDArray[Any], shape: tuple[int, int], dtype: Any = np.float32) -> NDArray[Any]:
    rows = np.zeros(shape, dtype)
    rows.reshape(-1)[: len(values)] = values
    return rows


def scorer_of(
    learner: Learner, plan: Chunks | Documents, how: Adaptation, seq_len: int, look: Look
) -> ScoreFirst | PerDocument:
    """The scorer that goes through the plan."""
    if isinstance(plan, Documents):
        return PerDocument(learner, plan, how, seq_len, look)
    return ScoreFirst(learner, plan, how.sgd, seq_len, look)
