"""attend(q, k, v): causal attention through the best kernel at hand, and which one that is."""

from __future__ import annotations

import mlx.core as mx
from mlx.core import array


def attend(q: array, k: array, v: array) -> array:
    """Causal softmax(q k^T / sqrt(D)) v. q: (B, T, H, D); k, v: (B, T, H_kv, D); out like q.

    Each key-value head serves H / H_kv query heads, in order, without being repeated.
    """
    scale = q.shape[-1] ** -0.5
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal")
    return y.swapaxes(1, 2)


def attention_choice(device: mx.Device) -> str:
    """The kernel order that `attend` asks for on this device, and why."""
    return f"mx.fast.scaled_dot_product_attention({device.type.name})"
