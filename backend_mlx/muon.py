"""Muon (Jordan et al. 2024): momentum, orthogonalised; pure functions over banks of matrices."""

from __future__ import annotations

import mlx.core as mx
from mlx.core import array

from core.train.newton_schulz import NORM_EPS, ROW_EPS, Table


def newton_schulz(grad: array, table: Table, dtype: mx.Dtype) -> array:
    """The nearest semi-orthogonal matrices, about. grad: (K, rows, cols); a table row a step.

    X <- aX + (bA + cA^2)X with A = X X^T, on the side where A is smaller; out in fp32 at least.
    """
    norm = mx.sqrt(mx.sum(mx.square(grad), axis=(-2, -1), keepdims=True))
    x = (grad / (norm + NORM_EPS)).astype(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.swapaxes(-2, -1) if tall else x
    for a, b, c in table:
        gram = x @ x.swapaxes(-2, -1)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.swapaxes(-2, -1) if tall else x).astype(grad.dtype)


def unit_rows(grad: array) -> array:
    """Each row divided by its L2 norm (MuonEq-R). grad: (K, rows, cols)."""
    norm = mx.sqrt(mx.sum(mx.square(grad), axis=-1, keepdims=True))
    return grad / mx.maximum(norm, ROW_EPS)


def even_rows(update: array, square: array, beta2: float) -> tuple[array, array]:
    """Each row over the root of its running mean square, the whole as long as before (NorMuon).

    update: (K, rows, cols); square: (K, rows, 1), which comes back brought up to date.
    """
    square = beta2 * square + (1.0 - beta2) * mx.mean(mx.square(update), axis=-1, keepdims=True)
    even = update / (mx.sqrt(square) + ROW_EPS)
    whole = mx.sum(mx.square(update), axis=(-2, -1), keepdims=True)
    left = mx.sum(mx.square(even), axis=(-2, -1), keepdims=True)
    return even * mx.sqrt(whole / (left + ROW_EPS)), square


def muon(
    weight: array,
    grad: array,
    momentum: array,
    square: array | None = None,
    *,
    lr: array | float,
    decay: array | float | None = None,
    beta: array | float,
    table: Table,
    dtype: mx.Dtype,
    row_norm: str = "none",
    row_beta2: float = 0.0,
) -> tuple[array, array, array | None]:
    """One step of a bank (K, rows, cols): new weight, momentum, and mean squares of rows.

    Heavy-ball Nesterov (momentum <- beta momentum + grad; step along grad + beta momentum), and
    rows / cols above 1 scale the step by its root. decay: the part of the weight that is taken.
    """
    momentum = beta * momentum + grad
    update = grad + beta * momentum
    if row_norm == "l2":
        update = unit_rows(update)
    update = newton_schulz(update, table, dtype)
    if square is not None:
        update, square = even_rows(update, square, row_beta2)
    move = (lr * max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5) * update
    move = move if decay is None else move + decay * weight
    return weight - move, momentum, square
