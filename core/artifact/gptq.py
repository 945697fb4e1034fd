"""GPTQ: a matrix and the moments of its inputs -> levels whose errors make up for each other.

Frantar et al. 2022, with their order by activation; float64 and LAPACK, so the last bit of a sum,
and with it a level on the edge, may differ between machines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array, Grid
from core.artifact.quant import quantize_rows

Float = NDArray[np.float64]
Levels = NDArray[np.int8]

BLOCK = 128  # columns whose errors reach the columns behind them in one product
DAMPING = 0.01  # of the mean of the diagonal, added to it


def gptq_rows(
    weight: Array, hessian: Float, grid: Grid, name: str = "weight"
) -> tuple[Levels, NDArray[np.float16]]:
    """(R, C) with H = sum of x x^T (C, C) to int8 levels (R, C) and fp16 scales (R,).

    The scales are those of quantize_rows. A column that no input reaches has levels of 0. A row
    whose nearest levels have no larger error, as `weighted_errors` has it, keeps these.
    Raises ValueError where H is not of this width, not finite, or not of positive squares.
    """
    nearest, scale = quantize_rows(weight, grid, name)
    _check(hessian, weight.shape[1], name)
    step = scale.astype(np.float64)
    dead = np.diag(hessian) == 0
    nearest[:, dead] = 0
    order = np.argsort(-np.diag(hessian), kind="stable")
    kept = np.where(dead, 0.0, weight.astype(np.float64))[:, order]
    levels = np.empty_like(nearest)
    levels[:, order] = _in_order(kept, _factor(hessian, order, name), step, grid.qmax)
    errors = [weighted_errors(weight, found, step, hessian) for found in (nearest, levels)]
    keeps = errors[0] <= errors[1]
    levels[keeps] = nearest[keeps]
    return levels, scale


def weighted_errors(weight: Array, levels: Levels, step: Float, hessian: Float) -> Float:
    """(R,): e H e^T of each row's error e, the sum of squares that the outputs are off by."""
    error = weight.astype(np.float64) - levels * step[:, None]
    total: Float = np.sum(error @ hessian * error, axis=1)
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


def _in_order(weight: Float, factor: Float, step: Float, qmax: int) -> Levels:
    """Column by column to the nearest level; what is lost is taken from the columns behind."""
    levels = np.empty(weight.shape, np.int8)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        lost = np.empty((len(weight), end - start))
        for j in range(start, end):
            level = np.clip(np.rint(weight[:, j] / step), -qmax, qmax)
            error = (weight[:, j] - level * step) / factor[j, j]
            weight[:, j + 1 : end] -= np.outer(error, factor[j, j + 1 : end])
            levels[:, j], lost[:, j - start] = level, error
        weight[:, end:] -= lost @ factor[start:end, end:]
    return levels


def _check(hessian: Float, cols: int, name: str) -> None:
    if hessian.shape != (cols, cols):
        raise ValueError(f"{name}: its Hessian is {hessian.shape}, expected {(cols, cols)}")
    if not np.all(np.isfinite(hessian)):
        raise ValueError(f"{name}: a number of its Hessian is NaN or infinite")
    if np.any(np.diag(hessian) < 0):
        raise ValueError(f"{name}: its Hessian has a negative square")
