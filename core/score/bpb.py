"""Nats, tokens and bytes become bits per byte; every target is counted once or it is an error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A score and what it was taken over."""

    nats: float
    tokens: int
    bytes: int  # of the decoded text, by the reference tables
    bytes_raw: int | None  # of the original documents, where a sidecar tells

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
    """Adds up windows. Row sums are float64 and added in the order of the calls."""

    def __init__(self, num_tokens: int, has_raw: bool) -> None:
        self._seen = np.zeros(num_tokens, np.uint8)  # times each position was a target
        self._nats = 0.0
        self._bytes = 0
        self._bytes_raw = 0 if has_raw else None

    def add(self, first: int, nats: NDArray[np.float32], counts: Ints, raw: Ints | None) -> None:
        """Targets at `first`, first+1, ...: their nats, reference bytes and original bytes."""
        if not np.isfinite(nats).all():
            where = first + int(np.flatnonzero(~np.isfinite(nats))[0])
            raise ValueError(f"the loss of target {where} is not finite: nothing can be scored")
        self._seen[first : first + len(nats)] += 1
        self._nats += float(nats.astype(np.float64).sum())
        self._bytes += int(counts.sum())
        if self._bytes_raw is not None:
            assert raw is not None
            self._bytes_raw += int(raw.sum())

    def result(self) -> Scored:
        """The score, if every target (all tokens but the first) was scored exactly once."""
        wrong = np.flatnonzero(self._seen[1:] != 1)
        if len(wrong) or self._seen[0]:
            at = 0 if self._seen[0] else int(wrong[0]) + 1
            raise AssertionError(f"target {at} was scored {self._seen[at]} times")
        return Scored(
            nats=self._nats,
            tokens=len(self._seen) - 1,
            bytes=self._bytes,
            bytes_raw=self._bytes_raw,
        )
