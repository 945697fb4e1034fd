"""This toolkit's scorers, played over streams on the tape as they are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.data.shards import TokenStream
from core.score.adaptation import Adaptation
from core.score.adapting import Learner, scorer_of
from core.score.answers import Answer, Record
from core.score.bpb import Ints, Tally
from core.score.courses import plan_of
from core.score.mixture import LogProbsOf
from core.score.plays import Play
from core.score.protocols import Protocol
from core.score.scorers import Block, Nats, Scorer, State, state_hash
from core.score.tape import Course, RuleBroken, Tape
from core.score.windows import Window, Windows

Start = Callable[[], tuple[Scorer, LogProbsOf]]  # a fresh scorer and its distributions


class Asked:
    """A scorer that is asked for distributions on the way; it scores as it does without."""

    def __init__(self, scorer: Scorer, log_probs: LogProbsOf, play: Play) -> None:
        self.adapts = scorer.adapts
        self.record = Record(len(play.tokens))
        self._scorer, self._log_probs, self._ask = scorer, log_probs, play.ask

    def score(self, block: Block) -> Nats:
        """As the scorer does, each answer kept; the distributions from the same state."""
        before = state_hash(self._scorer)
        self._keep(block)
        nats = self._scorer.score(block)
        for window, row in zip(block.windows, nats, strict=False):
            self.record.add(window.first, row[: window.count], before)
        return nats

    def observe(self, block: Block) -> None:
        """As the scorer does."""
        self._scorer.observe(block)

    def state(self) -> State:
        """That of the scorer."""
        return self._scorer.state()

    def _keep(self, block: Block) -> None:
        """The distributions that are asked for in a block."""
        found = [
            (row, target, window)
            for row, window in enumerate(block.windows)
            for target in self._ask
            if window.first <= target < window.stop
        ]
        if found:
            given = self._log_probs(block.x, block.y.shape[1])
            for row, target, window in found:
                place = given[row, target - window.first].astype(np.float64)
                self.record.log_probs[target] = place


def play_on_tape(
    start: Start, plays: Sequence[Play], protocol: Protocol, seq_len: int, batch: int
) -> list[Answer]:
    """An answer to each play, from a fresh start each; seq_len: of the model in training."""

    def answer(play: Play) -> Answer:
        stream = _stream(play)
        windows = protocol.windows(stream, seq_len)
        tape = _tape(stream, windows, (batch, protocol.length(seq_len)))
        return _answer(tape, Asked(*start(), play))

    return [answer(play) for play in plays]


def play_adapting(
    start: Callable[[], tuple[Learner, LogProbsOf]],
    plays: Sequence[Play],
    protocol: Protocol,
    how: Adaptation,
    seq_len: int,
    batch: int,
) -> list[Answer]:
    """The same of a model that learns on the way, each time from what it was at first."""

    def answer(play: Play) -> Answer:
        stream, (learner, log_probs) = _stream(play), start()
        windows = protocol.windows(stream, seq_len)
        plan = plan_of(windows, how, batch)
        course = Course(blocks=(turn.windows for turn in plan), edges=windows.edges)
        tape = _tape(stream, windows, (batch, protocol.length(seq_len)), course)
        scorer = scorer_of(learner, plan, how, seq_len, tape.tokens)
        return _answer(tape, Asked(scorer, log_probs, play))

    return [answer(play) for play in plays]


def _stream(play: Play) -> TokenStream:
    return TokenStream([play.tokens.astype(np.uint16)])


def _tape(
    stream: TokenStream, windows: Windows, shape: tuple[int, int], course: Course | None = None
) -> Tape:
    tally = Tally(len(stream), has_raw=False)
    return Tape(stream, windows, shape, _no_bytes, tally, course)


def _answer(tape: Tape, asked: Asked) -> Answer:
    try:
        tape.play(asked)
        tape.tally.result()
    except RuleBroken as broken:
        return asked.record.answer(str(broken), broken.rule.id)
    except (ValueError, AssertionError) as error:
        return asked.record.answer(str(error))
    return asked.record.answer()


def _no_bytes(window: Window) -> tuple[Ints, NDArray[np.int64] | None]:
    """Bytes are not what is asked here."""
    return np.ones(window.count, np.int64), None
