"""The running average of the weights, fp32."""

from __future__ import annotations

from torch import Tensor


def ema(average: Tensor, weight: Tensor, decay: Tensor | float) -> Tensor:
    """decay * average + (1 - decay) * weight."""
    return decay * average + (1.0 - decay) * weight
