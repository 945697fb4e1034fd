"""The tape: a scorer gives the nats of a block from what came before, and then is shown it.

The tape owns the position counter, the sums and the hash of the scorer's state. A scorer adapts in
`observe` and nowhere else: what it does elsewhere breaks a rule that the error names. A scorer can
lie about its state, and its nats are taken as given; what only looking at its answers can tell
(causality inside a block, nats of no distribution) is for an audit to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from core.arch.spec import BOS
from core.data.shards import Tokens, TokenStream
from core.score.bpb import Ints, Tally
from core.score.rules import SCORER_BY_ID
from core.score.scorers import Alone, Block, Nats, Ranks, Scorer, state_hash
from core.score.windows import Edges, Window, batches, fill, one_stretch

CERTAIN_NATS = -1e-4  # of a probability of 1, however it is rounded
BytesOf = Callable[[Window], tuple[Ints, Ints | None]]  # of a window's targets: tables', original


class RuleBroken(ValueError):
    """A scorer did what a rule of the task forbids."""

    def __init__(self, rule: str, evidence: str) -> None:
        self.rule = SCORER_BY_ID[rule]
        super().__init__(f"rule {rule}: {self.rule.what}; {evidence} ({self.rule.source})")


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """How a scorer that adapts goes through the split: in blocks of its own.

    Each stretch of inputs edges[i] .. edges[i+1]-1 is scored from left to right, and no window
    leaves its stretch; between two stretches there is no order.
    """

    blocks: Iterable[list[Window]]
    edges: Edges
    state_hash: str = ""  # of the scorer, where an earlier pass stopped


class Tape:
    """One pass over a plan of windows, `batch` of them a block; or over the blocks of a course."""

    def __init__(
        self,
        stream: TokenStream,
        windows: Sequence[Window],
        shape: tuple[int, int],
        bytes_of: BytesOf,
        tally: Tally,
        course: Course | None = None,
    ) -> None:
        """shape: windows a block and tokens a window. tally: where an earlier pass stopped."""
        self._stream, self.tally = stream, tally
        self._batch, self._seq_len = shape
        self._bytes_of = bytes_of
        self._edges = course.edges if course else one_stretch(len(stream))
        self._reached: dict[int, int] = {}  # the next target of each stretch that was begun
        self._own_blocks = course is not None
        self._groups = iter(course.blocks) if course else batches(windows, self._batch)
        self._skip_done(len(windows))
        self._left = course.state_hash if course else ""
        self._slides = self._own_blocks or windows[-1].skip > 0
        self.state_hash = ""  # of the scorer, as it was when it had last observed

    def tokens(self, start: int, stop: int) -> Tokens:
        """Part of the stream, for a scorer that looks back: none that is not scored yet.

        But for the first input of a stretch whose first target is scored: it was seen.
        """
        seen = any(self._edges[stretch] == start for stretch in self._begun_near(start))
        hidden = self.tally.unmarked(max(start + seen, 1), stop)
        if hidden is not None:
            raise RuleBroken("causality", f"token {hidden} was asked for before it was scored")
        return self._stream.slice(start, stop)

    def play(
        self,
        scorer: Scorer,
        after: Callable[[Tally], None] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Score the rest of the plan; `after` is called behind each block.

        The ranks take turns at the blocks and all add up all nats, in the order of the plan: the
        sum has the same bits on any number of them.
        """
        ranks = ranks or Alone()
        if scorer.adapts and ranks.world_size > 1:
            raise ValueError(
                f"{ranks.world_size} ranks and a scorer that adapts: each block needs the state "
                "behind the one before; divide its rows instead (score/divided.py)"
            )
        self.state_hash = state_hash(scorer)
        if scorer.adapts and self.tally.targets and self.state_hash != self._left:
            raise ValueError(
                f"a scorer that adapts cannot go on behind target {self.tally.targets}: its state "
                "is not the one that was left there; score from the start"
            )
        for turn in self._turns(ranks.world_size):
            mine = min(ranks.rank, len(turn) - 1)
            block = self._block(turn[mine])
            reached = self._next_targets(block.windows) if scorer.adapts else {}
            given = ranks.gather(self._ask(scorer, block))
            for group, nats in zip(turn, given, strict=False):
                self._commit(group, nats)
                if scorer.adapts:
                    self._reached |= reached
                    scorer.observe(block)
                    self.state_hash = state_hash(scorer)
                if after is not None:
                    after(self.tally)

    def _skip_done(self, of_windows: int) -> None:
        """Go on behind the tally's groups; ValueError unless it ends where one does."""
        tally, windows, targets = self.tally, 0, 0
        while windows < tally.windows and (group := next(self._groups, None)):
            windows += len(group)
            targets += sum(window.count for window in group)
            if self._own_blocks:
                self._reached |= self._next_targets(group)
        if (windows, targets) != (tally.windows, tally.targets):
            raise ValueError(
                f"a tally of {tally.windows} windows and {tally.targets} targets does not end "
                f"behind a batch of {self._batch} of these {of_windows} windows; score from the "
                "start"
            )

    def _block(self, group: list[Window]) -> Block:
        longest = max(window.skip + window.count for window in group)
        width = longest if self._own_blocks else self._seq_len
        x, y = fill(self._stream, group, self._rows(group), width)
        return Block(windows=tuple(group), x=x, y=y)

    def _begun_near(self, start: int) -> list[int]:
        """The stretch that begins there or later, if its first target is scored."""
        stretch = int(np.searchsorted(self._edges, start))
        return [stretch] if stretch in self._reached else []

    def _next_targets(self, windows: Sequence[Window]) -> dict[int, int]:
        """Of each stretch behind these windows; RuleBroken where one is not its stretch's next."""
        ahead = dict[int, int]()
        for window in windows:
            stretch = int(np.searchsorted(self._edges, window.start, side="right")) - 1
            begins, ends = map(int, self._edges[stretch : stretch + 2])
            target = ahead.get(stretch, self._reached.get(stretch, begins + 1))
            if window.first != target:
                raise RuleBroken(
                    "single pass",
                    f"a scorer that adapts is at target {target}, the plan's next is "
                    f"{window.first}; score it chunked or sliding, from the start",
                )
            if window.stop > ends + 1:
                raise RuleBroken(
                    "single pass",
                    f"the window of targets {window.first} to {window.stop - 1} reaches beyond "
                    f"target {ends}, where its stretch ends",
                )
            ahead[stretch] = window.stop
        return ahead

    def _ask(self, scorer: Scorer, block: Block) -> Nats:
        """The block's nats, from the state that the blocks before have left."""
        nats = scorer.score(block)
        if state_hash(scorer) != self.state_hash:
            raise RuleBroken(
                "score first",
                f"the scorer's state changed before target {block.windows[0].first} was scored",
            )
        if nats.shape != block.y.shape:
            raise ValueError(f"nats of shape {nats.shape}, expected {block.y.shape}, one a target")
        return nats

    def _rows(self, group: list[Window]) -> int:
        """One shape for all where no window slides, else as many rows as windows."""
        return len(group) if self._slides else self._batch

    def _turns(self, ranks: int) -> Iterator[list[list[Window]]]:
        """One group a rank, of one shape."""
        turn: list[list[Window]] = []
        for group in self._groups:
            if len(turn) == ranks or (turn and self._shape(group) != self._shape(turn[0])):
                yield turn
                turn = []
            turn.append(group)
        if turn:
            yield turn

    def _shape(self, group: list[Window]) -> tuple[int, int]:
        return self._rows(group), group[0].skip

    def _commit(self, group: list[Window], nats: Nats) -> None:
        """The whole block, or an error and none of it."""
        parts = [(run, nats[at : at + len(run), : run[0].count]) for at, run in _runs(group)]
        for run, rows in parts:
            self._check(run[0].first, rows.ravel())
        for run, rows in parts:
            span = Window(run[0].first - 1, rows.size)
            self.tally.add(span.first, rows, *self._bytes_of(span))

    def _check(self, first: int, nats: Nats) -> None:
        twice = self.tally.marked(first, first + len(nats))
        if twice is not None:
            raise RuleBroken("once", f"target {twice} was scored before")
        bad = np.flatnonzero(~np.isfinite(nats))
        if len(bad):
            where = first + int(bad[0])
            raise ValueError(
                f"the loss of target {where} is not finite: {nats[bad[0]]}; it is "
                f"{place(self._stream, where)} of the validation split"
            )
        if len(nats) and nats.min() < CERTAIN_NATS:
            where = int(nats.argmin())
            told = f"target {first + where} has {nats[where]:.6g} nats: more than certain"
            raise RuleBroken("normalised", told)


def place(stream: TokenStream, position: int) -> str:
    """token 5 of document 3: documents from 1, their BOS token 0."""
    document, begins, done = 0, 0, 0
    while done <= position:
        block = stream.slice(done, min(done + (1 << 22), position + 1))
        found = np.flatnonzero(block == BOS)
        document += len(found)
        begins = done + int(found[-1]) if len(found) else begins
        done += len(block)
    return f"token {position - begins} of document {document}"


def _runs(group: list[Window]) -> Iterator[tuple[int, list[Window]]]:
    """Windows as long as each other that follow each other's targets, and where they begin."""
    begins = 0
    for at in range(1, len(group) + 1):
        before = group[at - 1]
        ends = at == len(group) or group[at].count != before.count or group[at].first != before.stop
        if ends:
            yield begins, group[begins:at]
            begins = at
