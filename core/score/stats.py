"""Runs against runs: means, Welch and paired t, the record rule, progression, seeds for a power.

A is the candidate, B what it is measured against, and lower is better: a gain is how far A lies
below B. The tails of Student's distributions are given by the caller, as functions.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

RECORD_NATS = 0.005  # the gain that the task's README asks of a record, in nats per token ...
RECORD_P = 0.01  # ... and the p-value at which its logs must show that gain (pull request 1902)
PROGRESSION_P = 0.25  # the organisers' cut-off for "better than the row before" (pull request 1902)
MOST_SEEDS = 10_000

Tail = Callable[[float, float], float]  # (t, degrees of freedom) -> P(T > t) of Student's t
Pair = tuple[float, float]  # of A and of B
Power = Callable[[float, Pair, tuple[int, int], float], float]  # (gain, sds, runs, alpha) -> P


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some values in three numbers; sd is the sample's (n - 1), None for one value."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True, kw_only=True)
class TTest:
    """How many standard errors the gain lies above the margin."""

    gain: float
    t: float
    freedom: float

    def p_value(self, tail: Tail) -> float:
        """One-sided: how often no gain beyond the margin would look like this one, or better."""
        return tail(self.t, self.freedom)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One rule's view: whether it holds, and the p-value that it looked at; None without one, and
    where that leaves it open whether the rule holds.
    """

    holds: bool | None
    p_value: float | None


def sample(values: Sequence[float]) -> Sample:
    """ValueError for no values."""
    n = len(values)
    if n == 0:
        raise ValueError("0 values have no mean, expected at least one")
    mean = math.fsum(values) / n
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Sample(n=n, mean=mean, sd=math.sqrt(squares / (n - 1)) if n > 1 else None)


def welch(a: Sequence[float], b: Sequence[float], margin: float = 0.0) -> TTest | None:
    """Whether A lies below B by more than `margin`, variances apart (Welch 1947).

    None with fewer than two values a side, or where neither side varies.
    """
    one, other = sample(a), sample(b)
    if one.sd is None or other.sd is None:
        return None
    error, freedom = welch_error(one.sd, one.n, other.sd, other.n)
    gain = other.mean - one.mean
    if _is_rounding(error, one.mean):
        return None
    return TTest(gain=gain, t=(gain - margin) / error, freedom=freedom)


def welch_error(sd_a: float, n_a: int, sd_b: float, n_b: int) -> tuple[float, float]:
    """The standard error of the difference of means, and Satterthwaite's degrees of freedom."""
    part_a, part_b = sd_a**2 / n_a, sd_b**2 / n_b
    total = part_a + part_b
    if total == 0.0:
        return 0.0, float(n_a + n_b - 2)
    return math.sqrt(total), total**2 / (part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1))


def paired(gains: Sequence[float], margin: float = 0.0) -> TTest | None:
    """Whether gains of pairs (B - A of one seed) exceed `margin` on average: Student's paired t.

    None for fewer than two pairs, or gains that do not vary.
    """
    if len(gains) < 2:
        return None
    found = sample(gains)
    assert found.sd is not None
    error = found.sd / math.sqrt(found.n)
    if _is_rounding(error, found.mean):
        return None
    return TTest(gain=found.mean, t=(found.mean - margin) / error, freedom=float(found.n - 1))


def pair_up(
    a: Sequence[tuple[int | None, float]], b: Sequence[tuple[int | None, float]]
) -> dict[int, tuple[float, float]]:
    """{seed: (A, B)} of the seeds that both have; several runs of one seed count by their mean."""
    ours, theirs = _by_seed(a), _by_seed(b)
    return {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs}


def record_rule(a: Sequence[float], b: Sequence[float], tail: Tail) -> Verdict:
    """The README's rule, on nats per token: at p < 0.01 the gain is shown to be 0.005 or more.

    The null hypothesis is a gain of 0.005, not of nothing. Nothing is shown without a p-value.
    """
    test = welch(a, b, RECORD_NATS)
    p_value = None if test is None else test.p_value(tail)
    return Verdict(holds=p_value is not None and p_value < RECORD_P, p_value=p_value)


def progression(a: Sequence[float], b: Sequence[float], tail: Tail) -> Verdict:
    """Plain progression: A's mean is lower, at p < 0.25; open without a p-value."""
    test = welch(a, b)
    p_value = None if test is None else test.p_value(tail)
    return Verdict(holds=None if p_value is None else p_value < PROGRESSION_P, p_value=p_value)


def seeds_needed(
    gain: float,
    sds: Pair,
    alpha: float,
    power: float,
    power_of: Power,
    runs_b: int | None = None,
) -> int | None:
    """The fewest runs of each side with which the test at `alpha` finds the gain (beyond any
    margin) at this power; with `runs_b`, the fewest of A against so many of B. None where 10,000
    do not suffice. `power_of` is how often it finds it, with so many runs.
    """

    def enough(runs: int) -> bool:
        ns = (runs, runs if runs_b is None else runs_b)
        return power_of(gain, sds, ns, alpha) >= power

    if gain <= 0.0:
        return None
    few = 1  # is not enough: it has no spread
    while not enough(few * 2):  # from below, since too many of A alone cost degrees of freedom
        few *= 2
        if few > MOST_SEEDS:
            return None
    many = few * 2
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def least_gain(sd: float, runs: int, alpha: float, power: float, power_of: Power) -> float | None:
    """The smallest gain that so many runs a side, spread alike, find at `alpha` with this power;
    to a millionth of itself. None for one run, or without a spread.
    """
    if runs < 2 or sd == 0.0:
        return None
    low, high = 0.0, sd
    while power_of(high, (sd, sd), (runs, runs), alpha) < power:
        high *= 2.0
    while high - low > 1e-6 * high:
        middle = (low + high) / 2.0
        found = power_of(middle, (sd, sd), (runs, runs), alpha) >= power
        low, high = (low, middle) if found else (middle, high)
    return high


def splits(count: int, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """Ways to cut 0 .. count-1 into an A of half of them (rounded down) and a B: all of them, or
    `most` drawn with a fixed seed where there are more.
    """
    half, everyone = count // 2, range(count)
    if math.comb(count, half) <= most:
        chosen: Iterator[tuple[int, ...]] = combinations(everyone, half)
    else:
        dice = random.Random(0)
        chosen = (tuple(dice.sample(everyone, half)) for _ in range(most))
    for ours in chosen:
        yield list(ours), [index for index in everyone if index not in ours]


def error_rates(
    values: Sequence[float],
    rules: Mapping[str, Callable[[Sequence[float], Sequence[float]], bool]],
    most: int = 2000,
) -> tuple[int, dict[str, float]]:
    """A against A: over how many splits of one group's values, and how often each rule wrongly
    finds one half better. Fewer than four values cannot be split in two with a spread: 0, {}.
    """
    if len(values) < 4:
        return 0, {}
    errs, done = dict.fromkeys(rules, 0), 0
    for ours, theirs in splits(len(values), most):
        a, b = [values[i] for i in ours], [values[i] for i in theirs]
        done += 1
        for name, rule in rules.items():
            errs[name] += rule(a, b)
    return done, {name: found / done for name, found in errs.items()}


def at(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """The y of a curve at x, on the straight line between neighbours; None outside of it.

    The points are in the order of their x, which differ.
    """
    index = bisect_left(points, x, key=lambda point: point[0])
    if index < len(points) and points[index][0] == x:
        return points[index][1]
    if index in (0, len(points)):
        return None
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _by_seed(runs: Sequence[tuple[int | None, float]]) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for seed, value in runs:
        if seed is not None:
            found.setdefault(seed, []).append(value)
    return {seed: sample(values).mean for seed, values in found.items()}


def _is_rounding(error: float, size: float) -> bool:
    """Whether a standard error is nothing but the rounding of float64."""
    return error <= 1e-12 * abs(size)
