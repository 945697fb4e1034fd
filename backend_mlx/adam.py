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
    lr: array | float,
    decay: array | float | None = None,
    mean_left: array | float,
    square_left: array | float,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[array, array, array]:
    """One step: new weight, new mean, new mean square.

    weight - lr * mean_hat / (sqrt(square_hat) + eps), where mean_hat is the mean over mean_left,
    1 - beta1^t at step t from 1, and square_hat the mean square over square_left; less the part
    `decay` of the weight.
    """
    mean = beta1 * mean + (1.0 - beta1) * grad
    square = beta2 * square + (1.0 - beta2) * mx.square(grad)
    root = mx.sqrt(square) / square_left**0.5
    move = lr / mean_left * mean / (root + eps)
    move = move if decay is None else move + decay * weight
    return weight - move, mean, square
