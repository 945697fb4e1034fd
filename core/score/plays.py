"""Streams that a scorer is played over: the text, and the text with something of it changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import stream_of, uniform
from core.arch.spec import BOS

Ids = NDArray[np.int32]
Kind = Literal["text", "again", "future", "target", "cut", "document", "other text"]
LEAST_TOKENS = 16
DOCUMENTS = 3  # of whose first tokens the documents before are changed


@dataclass(frozen=True, kw_only=True, eq=False)
class Play:
    """One stream from a fresh start.

    Up to `same` nothing may move: neither the nats of the targets before it, nor the distribution
    of target `same` itself. Of a `document` it is what follows `same` that may not.
    """

    kind: Kind
    tokens: Ids
    ask: tuple[int, ...] = ()  # targets whose whole distribution is asked for
    same: int = 0

    @property
    def told(self) -> str:
        """What was changed, in words."""
        return {
            "text": "on the text itself",
            "again": "from a second fresh start",
            "future": f"with the tokens behind {self.same} changed",
            "target": f"with token {self.same} alone changed",
            "cut": f"with the text cut off behind {self.same}",
            "document": f"with the documents before token {self.same} changed",
            "other text": "behind another text",
        }[self.kind]


def plan(
    tokens: Ids, vocab_size: int, *, flips: int = 12, asks: int = 256, seed: int = 0
) -> list[Play]:
    """What shows whether a scorer keeps the rules on this text, the text itself first."""
    _check(tokens, vocab_size, flips, asks)
    places = spread(1, len(tokens) - 1, flips, seed)
    asked = tuple(sorted({*spread(1, len(tokens), asks, seed + 1), *places}))
    plays = [Play(kind="text", tokens=tokens, ask=asked), Play(kind="again", tokens=tokens)]
    for number, place in enumerate(places):
        plays += _flips(tokens, vocab_size, place, seed + number)
    plays += _documents(tokens, vocab_size, seed)
    other = changed(tokens, vocab_size, 1, len(tokens), seed, keep_bos=True)
    return [*plays, Play(kind="other text", tokens=other, ask=asked)]


def spread(first: int, stop: int, count: int, seed: int) -> list[int]:
    """One place of each of `count` equal parts of first .. stop - 1, each once."""
    edges = np.linspace(first, stop, count + 1)
    drawn = edges[:-1] + uniform(seed, stream_of("places"), (count,)) * np.diff(edges)
    return sorted({min(int(place), stop - 1) for place in drawn})


def changed(
    tokens: Ids, vocab_size: int, first: int, stop: int, seed: int, *, keep_bos: bool
) -> Ids:
    """The same with each of tokens first .. stop - 1 another one, and none of them a new BOS."""
    found = tokens.copy()
    part = tokens[first:stop].astype(np.int64)
    steps = 1 + (uniform(seed, stream_of("flip"), (len(part),)) * (vocab_size - 2)).astype(np.int64)
    places = (part - (part > BOS) + steps) % (vocab_size - 1)  # among the others than BOS
    others = places + (places >= BOS)
    found[first:stop] = np.where(part == BOS, BOS, others) if keep_bos else others
    return found


def _flips(tokens: Ids, vocab_size: int, place: int, seed: int) -> Iterator[Play]:
    """At one place: the future (its BOS tokens too, every other time), the token, the end."""
    future = changed(tokens, vocab_size, place + 1, len(tokens), seed, keep_bos=bool(seed % 2 == 0))
    yield Play(kind="future", tokens=future, ask=(place,), same=place)
    random = changed(tokens, vocab_size, place, place + 1, seed, keep_bos=False)
    yield Play(kind="target", tokens=random, ask=(place,), same=place)
    likely = tokens.copy()
    before = tokens[: place + 1]
    usual = before[(before != tokens[place]) & (before != BOS)]
    if len(usual):  # one that the text has: a cache or a table may know it
        likely[place] = usual[int(uniform(seed, stream_of("likely"), (1,))[0] * len(usual))]
        yield Play(kind="target", tokens=likely, ask=(place,), same=place)
    yield Play(kind="cut", tokens=tokens[: place + 1], ask=(place,), same=place)


def _documents(tokens: Ids, vocab_size: int, seed: int) -> Iterator[Play]:
    """The text before a BOS changed, the last token before it alone, or all of it."""
    found = np.flatnonzero(tokens == BOS)
    places = [int(place) for place in found if 1 < place < len(tokens) - 1]
    step = max(1, len(places) // DOCUMENTS)
    for place in places[::step][:DOCUMENTS]:
        for first in (place - 1, 1):
            other = changed(tokens, vocab_size, first, place, seed, keep_bos=True)
            if not np.array_equal(other, tokens):
                ask = (place + 1,)
                yield Play(kind="document", tokens=other, ask=ask, same=place)


def _check(tokens: Ids, vocab_size: int, flips: int, asks: int) -> None:
    if len(tokens) < LEAST_TOKENS:
        raise ValueError(f"{len(tokens)} tokens to audit on, expected {LEAST_TOKENS} or more")
    if vocab_size < 4 or int(tokens.max()) >= vocab_size:
        raise ValueError(f"token {tokens.max()} in a vocabulary of {vocab_size}")
    if flips < 1 or asks < 1:
        raise ValueError(f"{flips} places to change and {asks} to ask at, expected at least 1")


def of_kind(plays: Sequence[Play], kind: Kind) -> list[int]:
    """The places of the plays of a kind."""
    return [at for at, play in enumerate(plays) if play.kind == kind]
