"""GPTQ: matrices and the moments of their inputs -> levels whose errors make up for each other.

Frantar et al. 2022, with their order by activation. What it adds up is done by a solver: the
reference, or an engine's device; alike matrices are given to it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array, Grid
from core.artifact.packed import Levels
from core.artifact.rounding import narrow, row_scales
from core.artifact.scales import Scales, scale_values
from core.artifact.sums import REFERENCE, Float, Rule, Solver, output_errors, together

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
    """The steps of a matrix (R, C) as they are stored: of a row, or of a group, times of a column.

    A group is so many weights, counted row by row.
    """

    row: Scales  # (R,), or (R C / group,)
    col: NDArray[np.uint8] | None = None  # (C,)
    group: int = 0  # weights that share a step; 0: those of a row
    rule: Rule

    def rows(self) -> Float:
        return scale_values(self.row).astype(np.float64)

    def cols(self, cols: int) -> Float:
        return np.ones(cols) if self.col is None else scale_values(self.col).astype(np.float64)

    def wide(self, shape: tuple[int, ...]) -> Float:
        """Of each weight, (R, C)."""
        rows = self.rows().repeat(self.group).reshape(shape) if self.group else self.rows()[:, None]
        return rows * self.cols(shape[1])


@dataclass(frozen=True, eq=False, kw_only=True)
class Matrix:
    """One matrix (R, C) to be solved, its steps chosen."""

    weight: Array
    hessian: Float  # (C, C)
    known: Feedback  # of it
    steps: Steps


def feedbacks(hessians: Mapping[str, Float], solver: Solver = REFERENCE) -> dict[str, Feedback]:
    """Of each H = sum of x x^T (C, C), by name.

    Raises ValueError where one is not finite or not of positive squares.
    """
    for name, hessian in hessians.items():
        _check(hessian, name)
    orders = [np.argsort(-np.diag(hessian), kind="stable") for hessian in hessians.values()]
    damped = [_damped(h, order) for h, order in zip(hessians.values(), orders, strict=True)]
    factors = together(solver.factors, damped)
    found = {}
    for (name, hessian), order, factor in zip(hessians.items(), orders, factors, strict=True):
        if not np.all(np.isfinite(factor)) or np.any(np.diag(factor) <= 0):
            raise ValueError(f"{name}: its Hessian is not one of sums of squares")
        found[name] = Feedback(order, factor, np.diag(hessian) == 0)
    return found


def feedback(hessian: Float, cols: int, name: str = "weight") -> Feedback:
    """Of one; raises ValueError where it is not of this width either."""
    check_width(hessian, cols, name)
    return feedbacks({name: hessian})[name]


def check_width(hessian: Float, cols: int, name: str) -> None:
    if hessian.shape != (cols, cols):
        raise ValueError(f"{name}: its Hessian is {hessian.shape}, expected {(cols, cols)}")


def no_feedback(cols: int) -> Feedback:
    """Of inputs that are not known: every column by itself."""
    return Feedback(np.arange(cols), np.eye(cols), np.zeros(cols, bool))


def gptq(matrices: Sequence[Matrix], solver: Solver = REFERENCE) -> list[Levels]:
    """Levels int16 (R, C) of each; a column that no input reaches is quantized as zeros."""
    solved = together(
        solver.levels,
        [_in_order(one) for one in matrices],
        [one.known.factor for one in matrices],
        [one.steps.wide(one.weight.shape)[:, one.known.order] for one in matrices],
        alike=[(one.steps.rule,) for one in matrices],
    )
    found = list[Levels]()
    for one, moved in zip(matrices, solved, strict=True):
        levels = np.empty(one.weight.shape, np.int16)
        levels[:, one.known.order] = moved
        found.append(levels)
    return found


def never_worse(matrices: Sequence[Matrix], solver: Solver = REFERENCE) -> list[Levels]:
    """GPTQ's levels (R, C); a row whose nearest ones lose no more of its output has these.

    For plain levels: those of a trellis are no row's own.
    """
    assert not any(one.steps.rule.trellis for one in matrices)
    near, found = [_nearest(one) for one in matrices], gptq(matrices, solver)
    before, after = (_errors(matrices, some, solver) for some in (near, found))
    for levels, other, worse, better in zip(near, found, before, after, strict=True):
        levels[worse > better] = other[worse > better]
    return [narrow(levels) for levels in near]


def gptq_rows(
    weight: Array, hessian: Float, grid: Grid, name: str = "weight"
) -> tuple[Levels, Scales]:
    """(R, C) with H = sum of x x^T (C, C) to levels (R, C) and scales (R,), those of nearest
    rounding."""
    scale, known = row_scales(weight, grid, name), feedback(hessian, weight.shape[1], name)
    steps = Steps(row=scale, rule=Rule(last=grid.last))
    one = Matrix(weight=weight, hessian=hessian, known=known, steps=steps)
    return never_worse([one])[0], scale


def weighted_errors(weight: Array, levels: Levels, step: Float, hessian: Float) -> Float:
    """(R,): e H e^T of each row's error e, the sum of squares that the outputs are off by."""
    return output_errors(weight.astype(np.float64) - levels * step[:, None], hessian)


def _in_order(one: Matrix) -> Float:
    """(R, C) as it is solved: dead columns zeros, those first that matter most."""
    return np.where(one.known.dead, 0.0, one.weight.astype(np.float64))[:, one.known.order]


def _nearest(one: Matrix) -> NDArray[np.int16]:
    last, wide = one.steps.rule.last, one.steps.wide(one.weight.shape).astype(np.float32)
    with np.errstate(over="ignore"):
        nearest = np.clip(np.rint(one.weight / wide), -last, last)
    nearest[:, one.known.dead] = 0
    levels: NDArray[np.int16] = nearest.astype(np.int16)
    return levels


def _errors(matrices: Sequence[Matrix], levels: Sequence[Levels], solver: Solver) -> list[Float]:
    """(R,) of each: what the outputs are off by."""
    lost = [
        one.weight.astype(np.float64) - found * one.steps.wide(one.weight.shape)
        for one, found in zip(matrices, levels, strict=True)
    ]
    return together(solver.errors, lost, [one.hessian for one in matrices])


def _damped(hessian: Float, order: NDArray[np.int64]) -> Float:
    """(C, C) in this order, its diagonal raised."""
    damped: Float = hessian[np.ix_(order, order)].astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    diagonal[diagonal == 0] = 1.0
    diagonal += DAMPING * diagonal.mean()
    return damped


def _check(hessian: Float, name: str) -> None:
    if not np.all(np.isfinite(hessian)):
        raise ValueError(f"{name}: a number of its Hessian is NaN or infinite")
    if np.any(np.diag(hessian) < 0):
        raise ValueError(f"{name}: its Hessian has a negative square")
