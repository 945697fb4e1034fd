"""Which targets a row of the batch scores, and with what before them: windows, each target once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from core.data.shards import TokenStream

Rows = NDArray[np.int32]
Edges = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """`skip + count` inputs from `start` on; the targets of the last `count` of them are scored."""

    start: int
    count: int
    skip: int = 0

    @property
    def first(self) -> int:
        """The first target that is scored."""
        return self.start + self.skip + 1

    @property
    def stop(self) -> int:
        """Behind the last target."""
        return self.first + self.count


class Windows(Sequence[Window]):
    """Stretches of inputs cut into windows, none of which leaves its stretch.

    A stretch holds the inputs edges[i] .. edges[i+1]-1. Its first window scores all of its
    targets, at most seq_len; each later one begins `stride` further and scores the last `stride`
    of its seq_len targets, fewer at the end. The first windows of all stretches come before the
    later ones, both in the order of the stream. No window is held: each is computed.
    """

    def __init__(self, edges: Edges, seq_len: int, stride: int) -> None:
        assert 1 <= stride <= seq_len, (stride, seq_len)
        self.seq_len, self.stride = seq_len, stride
        self._edges = edges
        lengths = np.diff(edges)
        self._later = np.maximum(0, -((seq_len - lengths) // stride))
        self._ends = np.cumsum(self._later)

    @property
    def targets(self) -> int:
        """Of all windows."""
        return int(self._edges[-1] - self._edges[0])

    @property
    def edges(self) -> Edges:
        """Where the stretches begin, and the end of the last one."""
        return self._edges

    def of(self, stretch: int) -> list[Window]:
        """Those of one stretch, from left to right."""
        later = int(self._later[stretch])
        ahead = len(self._ends) + int(self._ends[stretch]) - later
        return [self._at(stretch), *(self._at(ahead + number) for number in range(later))]

    def pieces(self, stretch: int) -> list[Window]:
        """The same targets behind the same inputs, the first window cut: `stride` at most each."""
        first, *later = self.of(stretch)
        cuts = range(0, first.count, self.stride)
        cut = (Window(first.start, min(self.stride, first.count - at), at) for at in cuts)
        return [*cut, *later]

    def until(self, targets: int) -> Windows:
        """The same over the first so many targets."""
        stop = self._edges[0] + min(targets, self.targets)
        edges = np.append(self._edges[self._edges < stop], stop)
        return Windows(edges, self.seq_len, self.stride)

    def __len__(self) -> int:
        return len(self._ends) + int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> Window: ...

    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...

    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(i) for i in places]

    def _at(self, index: int) -> Window:
        later = index - len(self._ends)
        if later < 0:
            start, stop = map(int, self._edges[index : index + 2])
            return Window(start, min(self.seq_len, stop - start))
        stretch = int(np.searchsorted(self._ends, later, side="right"))
        number = later - int(self._ends[stretch] - self._later[stretch]) + 1
        start, skip = int(self._edges[stretch]) + number * self.stride, self.seq_len - self.stride
        return Window(start, min(self.stride, int(self._edges[stretch + 1]) - start - skip), skip)


def one_stretch(num_tokens: int) -> Edges:
    """The inputs of all num_tokens - 1 targets."""
    if num_tokens < 2:
        raise ValueError(f"{num_tokens} tokens hold no target: scoring needs at least two")
    return np.array([0, num_tokens - 1], np.int64)


def chunked(num_tokens: int, seq_len: int) -> Windows:
    """Non-overlapping windows over all num_tokens - 1 targets; the last one may be short."""
    return Windows(one_stretch(num_tokens), seq_len, seq_len)


def batches(windows: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """At most `size` at a time, alike in what they skip."""
    group: list[Window] = []
    for window in windows:
        if len(group) == size or (group and window.skip != group[0].skip):
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def fill(stream: TokenStream, group: list[Window], size: int, seq_len: int) -> tuple[Rows, Rows]:
    """x, int32 (size, seq_len), and y, (size, seq_len - skip), the targets behind its last columns.

    One window a row; unused places are zero. The shapes are those of every such group, so a
    compiled model meets few; what is right of a window's end cannot reach its targets through a
    causal model.
    """
    skip = group[0].skip
    x, y = np.zeros((size, seq_len), np.int32), np.zeros((size, seq_len - skip), np.int32)
    for row, window in enumerate(group):
        tokens = stream.slice(window.start, window.stop)
        x[row, : len(tokens) - 1], y[row, : window.count] = tokens[:-1], tokens[skip + 1 :]
    return x, y
