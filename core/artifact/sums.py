"""Sums: what a solver spends its time on, batches of alike matrices; the reference in numpy.

Float64 and LAPACK, so the last bit of a sum, and with it a level on the edge, may differ between
machines. An engine's solve.py has the same methods, and its levels are bounded by these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.artifact.trellis import trellis_levels

Float = NDArray[np.float64]
Whole = NDArray[np.int16]

BLOCK = 128  # columns whose errors reach the columns behind them in one product
LEAST_SPREAD = 1 / 12  # squared steps: what a column within one level is off by
MOST = 1 << 25  # numbers of one array of a batch


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a column, in steps, becomes levels."""

    last: int  # the outermost level
    trellis: int = 0  # states; 0: to the nearest level
    trellis_lambda: float = 0.0

    @property
    def price(self) -> float:
        """Of a squared step for a column whose mean square is one of them."""
        return self.trellis_lambda / (2 * math.log(2))

    def nearest(self, wanted: Float) -> tuple[Whole, Float]:
        """(R,) of one column, in steps: levels, and what they stand for."""
        if not self.trellis:
            levels = np.clip(np.rint(wanted), -self.last, self.last)
            return levels.astype(np.int16), levels
        spread = max(float(np.mean(np.square(wanted))), LEAST_SPREAD)
        found, values = trellis_levels(wanted, self.trellis, self.last, self.price / spread)
        return found.astype(np.int16), values


class Solver(Protocol):
    """Numpy in and out; N matrices that are alike at once."""

    def factors(self, damped: Float) -> Float:
        """(N, C, C) to U, upper triangular, with U^T U the inverse.

        Where there is none, its diagonal is not of positive numbers.
        """

    def levels(self, weight: Float, factor: Float, step: Float, rule: Rule) -> Whole:
        """(N, R, C) by (N, C, C), in steps (N, R, C), to levels (N, R, C): column by column, and
        what is lost is taken from the columns behind."""

    def errors(self, error: Float, hessian: Float) -> Float:
        """(N, R, C) by (N, C, C) to e H e^T of each row e, (N, R)."""


class Reference:
    """One matrix after the other."""

    def factors(self, damped: Float) -> Float:
        return np.stack([_factor(one) for one in damped])

    def levels(self, weight: Float, factor: Float, step: Float, rule: Rule) -> Whole:
        every = zip(weight, factor, step, strict=True)
        return np.stack([_levels(*one, rule) for one in every])

    def errors(self, error: Float, hessian: Float) -> Float:
        every = zip(error, hessian, strict=True)
        return np.stack([output_errors(one, by) for one, by in every])


REFERENCE: Solver = Reference()


def output_errors(error: NDArray[Any], hessian: Float) -> Float:
    """(R, C) to e H e^T of each row e, (R,)."""
    exact = error.astype(np.float64)
    total: Float = np.sum(exact @ hessian * exact, axis=1)
    return total


def together(
    work: Callable[..., NDArray[Any]],
    *columns: Sequence[NDArray[Any]],
    alike: Sequence[tuple[Hashable, ...]] | None = None,
) -> list[NDArray[Any]]:
    """work(*stacks, *alike) of all whose arrays have equal shapes; results in the order of what
    was given."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, parts in enumerate(zip(*columns, strict=True)):
        shapes = tuple(part.shape for part in parts)
        groups.setdefault((shapes, alike[place] if alike else ()), []).append(place)
    found: dict[int, NDArray[Any]] = {}
    for (shapes, same), places in groups.items():
        many = max(1, MOST // max(math.prod(shape) for shape in shapes))
        for start in range(0, len(places), many):
            some = places[start : start + many]
            stacks = (np.stack([column[place] for place in some]) for column in columns)
            found |= zip(some, work(*stacks, *same), strict=True)
    return [found[place] for place in range(len(found))]


def _factor(damped: Float) -> Float:
    """From the Cholesky factor of H written backwards: no inverse of H itself is needed."""
    try:
        lower = np.linalg.cholesky(damped[::-1, ::-1])
    except np.linalg.LinAlgError:
        return np.full_like(damped, np.nan)
    return np.triu(np.linalg.inv(lower[::-1, ::-1]))


def _levels(weight: Float, factor: Float, step: Float, rule: Rule) -> Whole:
    weight, levels = weight.copy(), np.empty(weight.shape, np.int16)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        lost = np.empty((len(weight), end - start))
        for j in range(start, end):
            levels[:, j], values = rule.nearest(weight[:, j] / step[:, j])
            error = (weight[:, j] - values * step[:, j]) / factor[j, j]
            weight[:, j + 1 : end] -= np.outer(error, factor[j, j + 1 : end])
            lost[:, j - start] = error
        weight[:, end:] -= lost @ factor[start:end, end:]
    return levels
