"""Adam (Kingma and Ba 2015) with torch's bias correction and epsilon placement."""

from __future__ import annotations

import torch
from torch import Tensor


def adam(
    weight: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: new weight, new mean, new mean square. `step` counts from 1.

    weight - lr * mean_hat / (sqrt(square_hat) + eps); the corrections are float64 scalars.
    """
    mean = beta1 * mean + (1.0 - beta1) * grad
    square = beta2 * square + (1.0 - beta2) * torch.square(grad)
    rate = lr / (1.0 - beta1**step)
    root = torch.sqrt(square) / (1.0 - beta2**step) ** 0.5
    return weight - rate * mean / (root + eps), mean, square
