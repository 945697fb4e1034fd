"""Nats, tokens and bytes become bits per byte; every target is counted once or it is an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.score.windows import Window

Ints = NDArray[np.int64]
BLOCK = 1 << 20  # positions that are looked at together


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A score and what it was taken over."""

    nats: float
    tokens: int
    bytes: int  # of the decoded text, by the reference tables
    bytes_raw: int | None  # of the original documents, where a sidecar tells
    interval: tuple[float, float] | None = None  # of a subset: where the full split's BPB may lie

    @property
    def val_loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def val_bpb(self) -> float:
        """Bits per byte of decoded text: comparable with the leaderboard."""
        return bits_per_byte(self.nats, self.bytes)

    @property
    def val_bpb_raw(self) -> float | None:
        """Bits per byte of the original documents."""
        return None if self.bytes_raw is None else bits_per_byte(self.nats, self.bytes_raw)


def bits_per_byte(nats: float, num_bytes: int) -> float:
    if num_bytes <= 0:
        raise ValueError(f"{num_bytes} bytes scored: bits per byte needs at least one")
    return nats / math.log(2.0) / num_bytes


class Tally:
    """Adds up windows. Row sums are float64 and added in the order of the calls.

    `chosen`: the windows of a subset, whose sums are kept one by one; None: all tokens but the
    first are targets.
    """

    def __init__(
        self, num_tokens: int, has_raw: bool, chosen: Sequence[Window] | None = None
    ) -> None:
        self.windows = 0  # added so far
        self.targets = 0
        self.window_sums: list[tuple[float, int]] = []  # nats and bytes of each, of a subset
        self._chosen = chosen
        self._seen = np.zeros(num_tokens, np.uint8)  # times each position was a target
        self._nats = 0.0
        self._bytes = 0
        self._bytes_raw = 0 if has_raw else None

    @property
    def bpb_so_far(self) -> float | None:
        """Bits per byte of what is added so far."""
        return bits_per_byte(self._nats, self._bytes) if self._bytes else None

    def add(self, first: int, nats: NDArray[np.float32], counts: Ints, raw: Ints | None) -> None:
        """Targets at `first`, first+1, ...: their nats, reference bytes and original bytes.

        nats: of one window, or those of several in rows, which are summed one by one.
        """
        if not np.isfinite(nats).all():
            where = first + int(np.flatnonzero(~np.isfinite(nats))[0])
            raise ValueError(f"the loss of target {where} is not finite: nothing can be scored")
        self._seen[first : first + nats.size] += 1
        rows = np.atleast_2d(nats)
        sums = rows.astype(np.float64).sum(axis=1).tolist()
        for window_nats in sums:
            self._nats += window_nats
        self._bytes += int(counts.sum())
        if self._bytes_raw is not None:
            assert raw is not None
            self._bytes_raw += int(raw.sum())
        if self._chosen is not None:
            window_bytes = counts.reshape(rows.shape).sum(axis=1).tolist()
            self.window_sums += zip(sums, window_bytes, strict=True)
        self.windows += len(rows)
        self.targets += nats.size

    def marked(self, first: int, stop: int) -> int | None:
        """The first of these positions that was a target already."""
        return _first(self._seen[first:stop] > 0, first)

    def unmarked(self, first: int, stop: int) -> int | None:
        """The first of these positions that was no target yet."""
        return _first(self._seen[first:stop] == 0, first)

    def result(self) -> Scored:
        """The score, if every target was scored exactly once and nothing else was."""
        for first in range(0, len(self._seen), BLOCK):  # a copy of the counter would be its size
            seen = self._seen[first : first + BLOCK]
            wanted = self._wanted(first, first + len(seen))
            wrong = np.flatnonzero(seen != wanted)
            if len(wrong):
                at = int(wrong[0])
                raise AssertionError(
                    f"target {first + at} was scored {seen[at]} times, expected {wanted[at]}"
                )
        return Scored(
            nats=self._nats,
            tokens=self.targets,
            bytes=self._bytes,
            bytes_raw=self._bytes_raw,
        )

    def to_state(self) -> tuple[dict[str, Any], bytes]:
        """Everything added so far: numbers that JSON keeps to the bit, and the counter's bytes."""
        numbers = {
            "windows": self.windows,
            "targets": self.targets,
            "nats": self._nats,
            "bytes": self._bytes,
            "bytes_raw": self._bytes_raw,
            "window_sums": [list(sums) for sums in self.window_sums],
        }
        return numbers, self._seen.tobytes()

    def from_state(self, numbers: dict[str, Any], counter: bytes) -> Tally:
        """Go on from there; ValueError unless the state is one that this tally could be in."""
        seen = np.frombuffer(counter, np.uint8)
        self._check(numbers, seen)
        self.windows, self.targets = numbers["windows"], numbers["targets"]
        self.window_sums = [(nats, count) for nats, count in numbers["window_sums"]]
        self._nats, self._bytes = numbers["nats"], numbers["bytes"]
        self._bytes_raw = numbers["bytes_raw"]
        self._seen = seen.copy()
        return self

    def _check(self, numbers: dict[str, Any], seen: NDArray[np.uint8]) -> None:
        fields, has_raw = self.to_state()[0].keys(), self._bytes_raw is not None
        _need(numbers.keys() == fields, f"fields {sorted(numbers)}, expected {sorted(fields)}")
        for name in ("windows", "targets", "bytes", *(["bytes_raw"] if has_raw else [])):
            _need(_is_count(numbers[name]), f"{name} {numbers[name]!r}, expected a count")
        _need(_is_sum(numbers["nats"]), f"nats {numbers['nats']!r}, expected a finite sum")
        _need(has_raw or numbers["bytes_raw"] is None, "original bytes, but there is no sidecar")
        expected = numbers["windows"] if self._chosen is not None else 0
        _need(_are_sums(numbers["window_sums"], expected), f"not the sums of {expected} windows")
        size, most = len(self._seen), int(seen.max(initial=0))
        _need(len(seen) == size, f"{len(seen)} counters, expected {size}")
        _need(most <= 1, f"a target scored {most} times, expected once")
        counted, said = int(seen.sum(dtype=np.int64)), numbers["targets"]
        _need(counted == said, f"{counted} targets counted, {said} said")

    def _wanted(self, first: int, stop: int) -> NDArray[np.uint8]:
        """How often each of these positions must have been a target."""
        wanted = np.full(stop - first, self._chosen is None, np.uint8)
        for window in self._chosen or ():
            wanted[max(window.first - first, 0) : max(window.stop - first, 0)] = 1
        wanted[: max(1 - first, 0)] = 0
        return wanted


def _first(marks: NDArray[np.bool_], offset: int) -> int | None:
    """The place of the first mark."""
    places = np.flatnonzero(marks)
    return offset + int(places[0]) if len(places) else None


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"a saved tally with {message}")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_sum(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _are_sums(values: object, expected: int) -> bool:
    """Whether these are (nats, bytes) of so many windows."""
    if not isinstance(values, list) or len(values) != expected:
        return False
    pairs = (v for v in values if isinstance(v, list) and len(v) == 2)
    return sum(_is_sum(nats) and _is_count(count) for nats, count in pairs) == expected
