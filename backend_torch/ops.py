"""The verbs of the model in PyTorch: norm, rotation, activations, softcap, loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from core.arch.spec import Activation


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, no weight; the mean is taken in fp32."""
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first R dims of each head. x: (B, T, H, D); cos, sin: (T, R/2).

    (x1, x2) -> (x1 cos + x2 sin, -x1 sin + x2 cos) with x1, x2 the halves of those R dims.
    """
    half = cos.shape[-1]
    cos, sin = cos[:, None, :].to(x.dtype), sin[:, None, :].to(x.dtype)
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin, rest], dim=-1)


def relu2(x: Tensor, slope: float) -> Tensor:
    """max(x, 0)^2."""
    return torch.square(torch.relu(x))


def leaky_relu2(x: Tensor, slope: float) -> Tensor:
    """x^2 above zero, (slope x)^2 below."""
    return torch.square(torch.where(x > 0, x, x * slope))


ACTIVATIONS: dict[Activation, Callable[[Tensor, float], Tensor]] = {
    "relu2": relu2,
    "leaky_relu2": leaky_relu2,
}


def softcap(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap) in fp32 at least; a cap of 0 leaves them as they are."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cap * torch.tanh(logits / cap) if cap else logits


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target, fp32 (B, T). logits: (B, T, V) fp32; targets: (B, T) integers."""
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none")
    return nats.view(targets.shape)
