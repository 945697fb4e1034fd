"""Validation subsets: fixed, named parts of the split, each a pure function of its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.score.windows import Window, Windows

SubsetName = Literal["full", "first-262k", "first-1m", "spread-262k", "spread-1m"]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The first `targets` of the split, or about as many in whole windows spread over it."""

    name: str
    targets: int
    spread: bool = False


_262K, _1M = 1 << 18, 1 << 20  # powers of two: whole windows for the usual seq_len

SUBSETS: dict[SubsetName, Subset] = {
    "first-262k": Subset(name="first-262k", targets=_262K),
    "first-1m": Subset(name="first-1m", targets=_1M),
    "spread-262k": Subset(name="spread-262k", targets=_262K, spread=True),
    "spread-1m": Subset(name="spread-1m", targets=_1M, spread=True),
}


def choose_subset(
    name: SubsetName, limit_tokens: int, num_tokens: int, window_targets: int
) -> Subset | None:
    """The named subset, or the first limit_tokens; None where that is the whole split.

    window_targets: how many a window scores at most, but for the first ones.
    """
    chosen = SUBSETS.get(name)
    if limit_tokens:
        chosen = Subset(name=f"first-{limit_tokens}", targets=limit_tokens)
    if chosen is None or chosen.targets >= num_tokens - 1:
        return None
    if chosen.spread and _count(chosen, window_targets) >= -(-(num_tokens - 1) // window_targets):
        return None
    return chosen


def windows_of(subset: Subset | None, whole: Windows) -> Sequence[Window]:
    """The windows to score, in order. A spread takes windows of the full protocol: of n windows,
    W of them, those at (2i + 1) n / 2W rounded down, i = 0 .. W-1; each has the context it would
    have in a full validation.
    """
    if subset is None:
        return whole
    if not subset.spread:
        return whole.until(subset.targets)
    count = min(_count(subset, whole.stride), len(whole))
    return [whole[(2 * i + 1) * len(whole) // (2 * count)] for i in range(count)]


def _count(subset: Subset, window_targets: int) -> int:
    """W: whole windows within the wanted targets, at least one."""
    return max(1, subset.targets // window_targets)
