"""The verbs of the model in PyTorch: norm, rotation, activations, softcap, loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from core.arch.spec import BOS, Activation, Softcap


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


def relu(x: Tensor, slope: float) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


def silu(x: Tensor, slope: float) -> Tensor:
    """x sigmoid(x), which opens the linear half of SwiGLU (Shazeer 2020)."""
    return x * torch.sigmoid(x)


ACTIVATIONS: dict[Activation, Callable[[Tensor, float], Tensor]] = {
    "relu2": relu2,
    "leaky_relu2": leaky_relu2,
    "relu": relu,
    "swiglu": silu,
}


def exclusive(y: Tensor, v: Tensor) -> Tensor:
    """y without its part along its own position's value (XSA). y: (B, T, H, D); v: (B, T, K, D).

    y_h - (y_h . n) n with n = v / max(|v|, 1e-12) of the key-value head that serves h.
    """
    rows, time, heads, dims = v.shape
    y_grouped = y.reshape(rows, time, heads, -1, dims)
    length = torch.sqrt(torch.sum(torch.square(v), dim=-1, keepdim=True))
    n = (v / torch.clamp(length, min=1e-12))[:, :, :, None]
    along = torch.sum(y_grouped * n, dim=-1, keepdim=True)
    return (y_grouped - along * n).reshape(y.shape)


def gated(y: Tensor, logits: Tensor, scale: float, gain: float) -> Tensor:
    """Each head times gain * sigmoid(scale * logits). y: (B, T, H, D); logits: (B, T, H)."""
    return y * (gain * torch.sigmoid(scale * logits))[..., None]


def before(x: Tensor, tokens: Tensor) -> Tensor:
    """What stood one position earlier, zeros at the first and where a document begins.

    x: (B, T, ...); tokens: (B, T). A document's first token is BOS: it sees nothing of another.
    """
    earlier = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    inside = (tokens != BOS).to(x.dtype)
    return earlier * inside.reshape(*tokens.shape, *[1] * (x.ndim - 2))


def pair_buckets(tokens: Tensor, buckets: int) -> Tensor:
    """A row of the bigram table for each token and the one before; the last row where none is.

    (36313 t XOR 27191 s) mod (buckets - 1) with s the token before t, in 64 bits.
    """
    tokens = tokens.long()
    earlier = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], dim=1)
    hashed = torch.bitwise_xor(36313 * tokens, 27191 * earlier) % (buckets - 1)
    first = torch.zeros_like(tokens)
    first[:, 0] = 1
    alone = (tokens == BOS) | (first == 1)
    return torch.where(alone, buckets - 1, hashed)


def tanh_cap(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap)."""
    return cap * torch.tanh(logits / cap)


def poly5_cap(logits: Tensor, cap: float) -> Tensor:
    """cap * (15u - 10u^3 + 3u^5) / 8 with u = 8 logits / (15 cap) held to +-1.

    The quintic of slope 1 at zero that reaches the cap with two vanishing derivatives.
    """
    u = torch.clamp(logits * (8.0 / (15.0 * cap)), -1.0, 1.0)
    square = u * u
    return (cap / 8.0) * u * (15.0 + square * (3.0 * square - 10.0))


SOFTCAPS: dict[Softcap, Callable[[Tensor, float], Tensor]] = {
    "tanh": tanh_cap,
    "poly5": poly5_cap,
}


def softcap(logits: Tensor, kind: Softcap, cap: float) -> Tensor:
    """Logits held within +-cap, in fp32 at least; a cap of 0 leaves them as they are."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return SOFTCAPS[kind](logits, cap) if cap else logits


def cross_entropy(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Nats of each target, fp32 (B, T). logits: (B, T, V) fp32; targets: (B, T) integers.

    z_loss: times the square of the logits' log-sum-exp is added.
    """
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none")
    nats = nats.view(targets.shape)
    return nats + z_loss * torch.square(torch.logsumexp(logits, -1)) if z_loss else nats
