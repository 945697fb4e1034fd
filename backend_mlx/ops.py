"""The verbs of the model in MLX: norm, rotation, activations, softcap, loss."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from core.arch.spec import Activation


def rms_norm(x: array, eps: float) -> array:
    """x / sqrt(mean(x^2) + eps) over the last axis, no weight; the mean is taken in fp32."""
    return mx.fast.rms_norm(x, None, eps)


def rotate(x: array, cos: array, sin: array) -> array:
    """Turn the first R dims of each head. x: (B, T, H, D); cos, sin: (T, R/2).

    (x1, x2) -> (x1 cos + x2 sin, -x1 sin + x2 cos) with x1, x2 the halves of those R dims.
    """
    half = cos.shape[-1]
    cos, sin = cos[:, None, :].astype(x.dtype), sin[:, None, :].astype(x.dtype)
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return mx.concatenate([x1 * cos + x2 * sin, x2 * cos - x1 * sin, rest], axis=-1)


def relu2(x: array, slope: float) -> array:
    """max(x, 0)^2."""
    return mx.square(mx.maximum(x, 0))


def leaky_relu2(x: array, slope: float) -> array:
    """x^2 above zero, (slope x)^2 below."""
    return mx.square(mx.where(x > 0, x, x * slope))


ACTIVATIONS: dict[Activation, Callable[[array, float], array]] = {
    "relu2": relu2,
    "leaky_relu2": leaky_relu2,
}


def softcap(logits: array, cap: float) -> array:
    """cap * tanh(logits / cap) in fp32 at least; a cap of 0 leaves them as they are."""
    logits = logits.astype(mx.float32)
    return cap * mx.tanh(logits / cap) if cap else logits


def cross_entropy(logits: array, targets: array) -> array:
    """Nats of each target, fp32 (B, T). logits: (B, T, V) fp32; targets: (B, T) integers."""
    return nn.losses.cross_entropy(logits, targets, reduction="none")
