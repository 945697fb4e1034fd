"""Adam (Kingma and Ba 2015) with torch's bias correction and epsilon placement."""

from __future__ import annotations

import mlx.core as mx
from mlx.core import array


def adam(
    weight: array,
    grad: array,
    mean: array,
    square: array,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[array, array, array]:
    """One step: new weight, new mean, new mean square. `step` counts from 1.

    weight - lr * mean_hat / (sqrt(square_hat) + eps); the corrections are float64 scalars.
    """
    mean = beta1 * mean + (1.0 - beta1) * grad
    square = beta2 * square + (1.0 - beta2) * mx.square(grad)
    rate = lr / (1.0 - beta1**step)
    root = mx.sqrt(square) / (1.0 - beta2**step) ** 0.5
    return weight - rate * mean / (root + eps), mean, square
