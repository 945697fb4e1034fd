"""GPTQ: a matrix and the moments of its inputs -> levels whose errors make up for each other.

Frantar et al. 2022, with their order by activation; float64 and LAPACK, so the last bit of a sum,
and with it a level on the edge, may differ between machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array, Grid
from core.artifact.quant import Levels, narrow, row_scales
from core.artifact.scales import Scales, scale_values
from core.artifact.trellis import trellis_levels

Float = NDArray[np.float64]

BLOCK = 128  # columns whose errors reach the columns behind them in one product
DAMPING = 0.01  # of the mean of the diagonal, added to it


@dataclass(frozen=True, eq=False)
class Feedback:
    """What a Hessian says: the order of the columns, and how each one's error is made up for."""

    order: NDArray[np.int64]  # (C,), the columns that their inputs reach most first
    factor: Float  # (C, C) in that order, upper triangular: U^T U is the inverse of H, damped
    dead: NDArray[np.bool_]  # (C,): columns that no input reaches

    @property
    def freedom(self) -> Float:
        """(C,), by column: how wide a step is that costs as much output error as any other's.

        The diagonal of U: what is lost in column j adds (error_j / freedom_j)^2.
        """
        free = np.empty(len(self.order))
        free[self.order] = np.diag(self.factor)
        return free


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """The steps of a matrix (R, C) as they are stored: of a row times of a column."""

    row: Scales  # (R,)
    col: NDArray[np.uint8] | None = None  # (C,)
    last: int  # the outermost level
    trellis: int = 0
    trellis_lambda: float = 0.0

    def rows(self) -> Float:
        return scale_values(self.row).astype(np.float64)

    def cols(self, cols: int) -> Float:
        return np.ones(cols) if self.col is None else scale_values(self.col).astype(np.float64)

    def nearest(self, weight: Float) -> tuple[Levels, Float]:
        """(R,) of one column, in steps: levels, and what they stand for."""
        if not self.trellis:
            levels = np.clip(np.rint(weight), -self.last, self.last)
            return levels.astype(np.int16), levels
        spread = float(np.mean(np.square(weight)))
        price = self.trellis_lambda / (2 * math.log(2) * max(spread, 1 / 12))
        found, values = trellis_levels(weight, self.trellis, self.last, price)
        return found.astype(np.int16), values


def feedback(hessian: Float, cols: int, name: str = "weight") -> Feedback:
    """Of H = sum of x x^T (C, C).

    Raises ValueError where H is not of this width, not finite, or not of positive squares.
    """
    _check(hessian, cols, name)
    order = np.argsort(-np.diag(hessian), kind="stable")
    return Feedback(order, _factor(hessian, order, name), np.diag(hessian) == 0)


def no_feedback(cols: int) -> Feedback:
    """Of inputs that are not known: every column by itself."""
    return Feedback(np.arange(cols), np.eye(cols), np.zeros(cols, bool))


def gptq(weight: Array, known: Feedback, steps: Steps) -> Levels:
    """(R, C) to levels int16 (R, C); a column that no input reaches is quantized as zeros."""
    step, cols = steps.rows(), steps.cols(weight.shape[1])[known.order]
    kept = np.where(known.dead, 0.0, weight.astype(np.float64))[:, known.order]
    levels = np.empty(weight.shape, np.int16)
    levels[:, known.order] = _in_order(kept, known.factor, step, cols, steps)
    return levels


def gptq_rows(
    weight: Array, hessian: Float, grid: Grid, name: str = "weight"
) -> tuple[Levels, NDArray[np.float16]]:
    """(R, C) with H = sum of x x^T (C, C) to levels (R, C) and fp16 scales (R,), those of nearest
    rounding."""
    scale = row_scales(weight, grid, name)
    known = feedback(hessian, weight.shape[1], name)
    return never_worse(weight, hessian, known, Steps(row=scale, last=grid.last)), scale


def never_worse(weight: Array, hessian: Float, known: Feedback, steps: Steps) -> Levels:
    """GPTQ's levels (R, C); a row whose nearest ones lose no more of its output has these.

    For plain levels: those of a trellis are no row's own.
    """
    assert not steps.trellis
    wide = scale_values(steps.row)[:, None]
    if steps.col is not None:
        wide = wide * scale_values(steps.col)
    with np.errstate(over="ignore"):
        nearest = np.clip(np.rint(weight / wide), -steps.last, steps.last).astype(np.int16)
    nearest[:, known.dead] = 0
    levels = gptq(weight, known, steps)
    before, after = (
        output_errors(weight.astype(np.float64) - found * wide.astype(np.float64), hessian)
        for found in (nearest, levels)
    )
    better = before > after
    nearest[better] = levels[better]
    return narrow(nearest)


def weighted_errors(weight: Array, levels: Levels, step: Float, hessian: Float) -> Float:
    """(R,): e H e^T of each row's error e, the sum of squares that the outputs are off by."""
    return output_errors(weight.astype(np.float64) - levels * step[:, None], hessian)


def output_errors(error: NDArray[Any], hessian: Float) -> Float:
    """(R, C) to e H e^T of each row e, (R,)."""
    exact = error.astype(np.float64)
    total: Float = np.sum(exact @ hessian * exact, axis=1)
    return total


def _factor(hessian: Float, order: NDArray[np.int64], name: str) -> Float:
    """U, upper triangular, with U^T U the inverse of H, damped and its columns in `order`.

    From the Cholesky factor of H written backwards: no inverse of H itself is needed.
    """
    damped = hessian[np.ix_(order, order)].astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    diagonal[diagonal == 0] = 1.0
    diagonal += DAMPING * diagonal.mean()
    try:
        lower = np.linalg.cholesky(damped[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise ValueError(f"{name}: its Hessian is not one of sums of squares") from None
    return np.triu(np.linalg.inv(lower[::-1, ::-1]))


def _in_order(weight: Float, factor: Float, step: Float, cols: Float, steps: Steps) -> Levels:
    """Column by column to its levels; what is lost is taken from the columns behind."""
    levels = np.empty(weight.shape, np.int16)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        lost = np.empty((len(weight), end - start))
        for j in range(start, end):
            wide = step * cols[j]
            levels[:, j], values = steps.nearest(weight[:, j] / wide)
            error = (weight[:, j] - values * wide) / factor[j, j]
            weight[:, j + 1 : end] -= np.outer(error, factor[j, j + 1 : end])
            lost[:, j - start] = error
        weight[:, end:] -= lost @ factor[start:end, end:]
    return levels


def _check(hessian: Float, cols: int, name: str) -> None:
    if hessian.shape != (cols, cols):
        raise ValueError(f"{name}: its Hessian is {hessian.shape}, expected {(cols, cols)}")
    if not np.all(np.isfinite(hessian)):
        raise ValueError(f"{name}: a number of its Hessian is NaN or infinite")
    if np.any(np.diag(hessian) < 0):
        raise ValueError(f"{name}: its Hessian has a negative square")
