"""The running average of the weights, fp32."""

from __future__ import annotations

from mlx.core import array


def ema(average: array, weight: array, decay: array | float) -> array:
    """decay * average + (1 - decay) * weight."""
    return decay * average + (1.0 - decay) * weight
