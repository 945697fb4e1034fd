"""The verbs of the model in MLX: norm, rotation, activations, softcap, loss."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
from mlx.core import array

from core.arch.spec import BOS, Activation, Softcap


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


def relu(x: array, slope: float) -> array:
    """max(x, 0)."""
    return mx.maximum(x, 0)


def silu(x: array, slope: float) -> array:
    """x sigmoid(x), which opens the linear half of SwiGLU (Shazeer 2020)."""
    return x * mx.sigmoid(x)


ACTIVATIONS: dict[Activation, Callable[[array, float], array]] = {
    "relu2": relu2,
    "leaky_relu2": leaky_relu2,
    "relu": relu,
    "swiglu": silu,
}


def exclusive(y: array, v: array) -> array:
    """y without its part along its own position's value (XSA). y: (B, T, H, D); v: (B, T, K, D).

    y_h - (y_h . n) n with n = v / max(|v|, 1e-12) of the key-value head that serves h.
    """
    rows, time, heads, dims = v.shape
    y_grouped = y.reshape(rows, time, heads, -1, dims)
    length = mx.sqrt(mx.sum(mx.square(v), axis=-1, keepdims=True))
    n = (v / mx.maximum(length, 1e-12))[:, :, :, None]
    along = mx.sum(y_grouped * n, axis=-1, keepdims=True)
    return (y_grouped - along * n).reshape(y.shape)


def gated(y: array, logits: array, scale: float, gain: float) -> array:
    """Each head times gain * sigmoid(scale * logits). y: (B, T, H, D); logits: (B, T, H)."""
    return y * (gain * mx.sigmoid(scale * logits))[..., None]


def before(x: array, tokens: array) -> array:
    """What stood one position earlier, zeros at the first and where a document begins.

    x: (B, T, ...); tokens: (B, T). A document's first token is BOS: it sees nothing of another.
    """
    earlier = mx.concatenate([mx.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    inside = (tokens != BOS).astype(x.dtype)
    return earlier * inside.reshape(*tokens.shape, *[1] * (x.ndim - 2))


def pair_buckets(tokens: array, buckets: int) -> array:
    """A row of the bigram table for each token and the one before; the last row where none is.

    (36313 t XOR 27191 s) mod (buckets - 1) with s the token before t, in 64 bits.
    """
    tokens = tokens.astype(mx.int64)
    earlier = mx.concatenate([mx.full(tokens[:, :1].shape, BOS, mx.int64), tokens[:, :-1]], axis=1)
    hashed = mx.bitwise_xor(36313 * tokens, 27191 * earlier) % (buckets - 1)
    first = mx.zeros_like(tokens)
    first[:, 0] = 1
    alone = (tokens == BOS) | (first == 1)
    return mx.where(alone, buckets - 1, hashed)


def tanh_cap(logits: array, cap: float) -> array:
    """cap * tanh(logits / cap)."""
    return cap * mx.tanh(logits / cap)


def poly5_cap(logits: array, cap: float) -> array:
    """cap * (15u - 10u^3 + 3u^5) / 8 with u = 8 logits / (15 cap) held to +-1.

    The quintic of slope 1 at zero that reaches the cap with two vanishing derivatives.
    """
    u = mx.clip(logits * (8.0 / (15.0 * cap)), -1.0, 1.0)
    square = u * u
    return (cap / 8.0) * u * (15.0 + square * (3.0 * square - 10.0))


SOFTCAPS: dict[Softcap, Callable[[array, float], array]] = {
    "tanh": tanh_cap,
    "poly5": poly5_cap,
}


def softcap(logits: array, kind: Softcap, cap: float) -> array:
    """Logits held within +-cap, in fp32 at least; a cap of 0 leaves them as they are."""
    logits = logits.astype(mx.float32)
    return SOFTCAPS[kind](logits, cap) if cap else logits


def cross_entropy(logits: array, targets: array, z_loss: float = 0.0) -> array:
    """Nats of each target, fp32 (B, T). logits: (B, T, V) fp32; targets: (B, T) integers.

    z_loss: times the square of the logits' log-sum-exp is added.
    """
    nats = mx.fast.cross_entropy(logits, targets)
    return nats + z_loss * mx.square(mx.logsumexp(logits, -1)) if z_loss else nats
