"""Whole distributions on the tape, and a legal mixture: the model's with that of a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from core.score.scorers import Block, Nats, State
from core.score.tape import RuleBroken
from core.score.windows import Rows

LogProbs = NDArray[np.floating]
LogProbsOf = Callable[[Rows, int], LogProbs]  # inputs (B, T), L -> (B, L, V) behind the last L
SUM_TOLERANCE = 1e-4


class Distribution(Protocol):
    """A scorer that never sees a target before it is scored."""

    def log_probs(self, x: Rows, last: int) -> LogProbs:
        """Log-probabilities of all V tokens behind the last inputs, (B, last, V). x: (B, T)."""

    def observe(self, block: Block) -> None:
        """The block is scored."""

    def state(self) -> State:
        """All that can change and that the distributions depend on."""


class Normalised:
    """A distribution as a scorer: each one's sum is checked, and the targets are looked up."""

    adapts = True

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution

    def score(self, block: Block) -> Nats:
        """Nats of each target, (B, L); RuleBroken where the probabilities do not add up to 1."""
        found = self._distribution.log_probs(block.x, block.y.shape[1])
        for window, rows in zip(block.windows, found, strict=False):
            sums = np.exp(rows[: window.count].astype(np.float64)).sum(-1)
            wrong = np.flatnonzero(~(np.abs(sums - 1.0) <= SUM_TOLERANCE))
            if len(wrong):
                evidence = f"that of target {window.first + wrong[0]} has the sum {sums[wrong[0]]}"
                raise RuleBroken("normalised", evidence)
        return -np.take_along_axis(found, block.y[..., None], -1)[..., 0].astype(np.float32)

    def observe(self, block: Block) -> None:
        """As the distribution does."""
        self._distribution.observe(block)

    def state(self) -> State:
        """That of the distribution."""
        return self._distribution.state()


class CacheMixture:
    """(1 - w) p_model + w p_cache, whose parts and share know nothing of the token to come.

    The cache holds the last `reach` tokens that were scored. Where the last `order` inputs occur in
    it, p_cache is how often each token followed them there, of n times in all, and
    w = share * n / (n + 1); else w = 0. (Cache models: Kuhn and De Mori 1990.)
    """

    def __init__(
        self, model: LogProbsOf, *, reach: int = 4096, order: int = 2, share: float = 0.3
    ) -> None:
        if order < 1 or reach <= order or not 0 <= share < 1:
            raise ValueError(
                f"order {order}, reach {reach}, share {share}; expected an order of at least 1, a "
                "reach above it and a share in [0, 1)"
            )
        self._model, self._reach, self._order, self._share = model, reach, order, share
        self._cache = np.zeros(0, np.int32)

    def log_probs(self, x: Rows, last: int) -> LogProbs:
        """Of all V tokens behind the last inputs, float64 (B, last, V)."""
        probs = np.exp(self._model(x, last).astype(np.float64))
        for row, inputs in enumerate(x):
            counts = self._followers(inputs, last, probs.shape[-1])
            times = counts.sum(-1, keepdims=True)
            share = self._share * times / (times + 1.0)
            probs[row] = (1.0 - share) * probs[row] + share * counts / np.maximum(times, 1.0)
        return np.log(probs)

    def observe(self, block: Block) -> None:
        """Keep the targets; before the first of them, the input that none of them is."""
        kept = [self._cache] if len(self._cache) else [block.x[0, :1]]
        kept += [row[: one.count] for one, row in zip(block.windows, block.y, strict=False)]
        self._cache = np.concatenate(kept)[-self._reach :]

    def state(self) -> State:
        """The cache."""
        return {"cache": self._cache}

    def _followers(self, inputs: NDArray[np.int32], last: int, vocab: int) -> LogProbs:
        """How often each token follows the inputs before it in the cache, (last, V)."""
        counts, order = np.zeros((last, vocab)), self._order
        if len(self._cache) <= order:
            return counts
        kept = sliding_window_view(self._cache, order)[:-1]
        for place in range(max(last - len(inputs) + order - 1, 0), last):
            stop = len(inputs) - last + place + 1
            hits = (kept == inputs[stop - order : stop]).all(-1)
            counts[place] = np.bincount(self._cache[order:][hits], minlength=vocab)
        return counts
