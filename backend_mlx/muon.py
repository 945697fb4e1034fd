"""Muon (Jordan et al. 2024): momentum, orthogonalised; pure functions over banks of matrices."""

from __future__ import annotations

import mlx.core as mx
from mlx.core import array

from core.train.newton_schulz import NORM_EPS, Table


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


def muon(
    weight: array,
    grad: array,
    momentum: array,
    *,
    lr: array | float,
    beta: array | float,
    table: Table,
    dtype: mx.Dtype,
) -> tuple[array, array]:
    """One step of a bank (K, rows, cols): new weight, new momentum.

    Heavy-ball Nesterov (momentum <- beta momentum + grad; step along grad + beta momentum), and
    rows / cols above 1 scale the step by its root.
    """
    momentum = beta * momentum + grad
    update = newton_schulz(grad + beta * momentum, table, dtype)
    scale = max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5
    return weight - (lr * scale) * update, momentum
