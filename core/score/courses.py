"""How an adapting scorer goes through the split: what is scored when, and what may learn behind it.

The targets and the inputs before each of them are those of the protocol, so that a scorer that has
learned nothing gives the protocol's own score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.score.adaptation import Adaptation, Lora, Sgd
from core.score.windows import Window, Windows, batches


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """A block that is scored together."""

    windows: list[Window]
    learns: int = 0  # its first so many rows are of documents that go on
    ends: bool = False  # the last one of a chunk, or of a batch of documents


class Plan(Protocol):
    """All turns of a scoring, from the first each time that it is gone through."""

    sizes: list[int]  # targets of each chunk, or documents of each batch

    def __iter__(self) -> Iterator[Turn]: ...


class Chunks:
    """From left to right, in chunks of whole windows with chunk_tokens targets at most.

    Within a chunk the windows that begin a stretch come first: nothing learns between them. A
    window longer than a chunk is one.
    """

    def __init__(self, windows: Windows, sgd: Sgd, batch: int) -> None:
        self._windows, self._most, self._batch = windows, sgd.chunk_tokens, batch
        self.sizes = [sum(window.count for window in chunk) for chunk in self._chunks()]

    def __iter__(self) -> Iterator[Turn]:
        for chunk in self._chunks():
            ordered = sorted(chunk, key=lambda window: window.skip > 0)
            *blocks, last = batches(ordered, self._batch)
            yield from (Turn(windows=block) for block in blocks)
            yield Turn(windows=last, ends=True)

    def _chunks(self) -> Iterator[list[Window]]:
        chunk: list[Window] = []
        for stretch in range(len(self._windows.edges) - 1):
            for window in self._windows.of(stretch):
                if chunk and window.stop - chunk[0].first > self._most:
                    yield chunk
                    chunk = []
                chunk.append(window)
        yield chunk


class Documents:
    """The longest first, docs_batch of them side by side, each from left to right."""

    def __init__(self, windows: Windows, lora: Lora) -> None:
        self._windows, self._batch = windows, lora.docs_batch
        lengths = np.diff(windows.edges)
        self.order = [int(document) for document in np.argsort(-lengths, kind="stable")]
        starts = range(0, len(self.order), self._batch)
        self.sizes = [len(self.order[at : at + self._batch]) for at in starts]

    def __iter__(self) -> Iterator[Turn]:
        for begins in range(0, len(self.order), self._batch):
            documents = self.order[begins : begins + self._batch]
            pieces = [self._windows.pieces(document) for document in documents]
            for at in range(len(pieces[0])):
                going_on = sum(len(piece) > at + 1 for piece in pieces)
                block = [piece[at] for piece in pieces if len(piece) > at]
                yield Turn(windows=block, learns=going_on, ends=going_on == 0)

    def inputs_of(self, document: int) -> tuple[int, int]:
        """Where its inputs begin, and the place behind its last target."""
        first, behind = map(int, self._windows.edges[document : document + 2])
        return first, behind + 1


def plan_of(windows: Windows, adaptation: Adaptation, batch: int) -> Chunks | Documents:
    """batch: windows a block, where documents are not what stands side by side."""
    if adaptation.per_document:
        return Documents(windows, adaptation.lora)
    return Chunks(windows, adaptation.sgd, batch)


def behind(plan: Plan, parts: int) -> Iterator[Turn]:
    """The turns behind so many chunks, or batches of documents; ValueError unless some follow."""
    if not 0 < parts < len(plan.sizes):
        raise ValueError(f"part {parts} of {len(plan.sizes)} of a scoring is none to go on from")
    turns = iter(plan)
    for _ in range(parts):
        while not next(turns).ends:
            pass
    return turns


def all_windows(plan: Plan) -> list[Window]:
    """Of every turn, in order."""
    return [window for turn in plan for window in turn.windows]
