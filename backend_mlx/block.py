"""The block: attention, MLP, and the routes that x takes through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from backend_mlx.attend import attend
from backend_mlx.linear import LINEARS, Linear
from backend_mlx.ops import ACTIVATIONS, exclusive, gated, rms_norm, rotate
from core.arch.spec import ModelSpec, Routing


class Given(NamedTuple):
    """What every block is given beside x."""

    x0: array  # (B, T, C), the normalised embeddings
    cos: array  # (T, R/2)
    sin: array
    sees: dict[int, array | None]  # by window: (B or 1, T, T), or plain causal attention
    value_rows: array | None  # (B, T, H_kv D), of the value table
    first_values: list[array]  # (B, T, H_kv, D), of the first visit, once it has been made


class Attention(nn.Module):
    """Causal grouped-query attention with normalised queries and keys and a gain per head."""

    def __init__(self, spec: ModelSpec, block: int) -> None:
        super().__init__()
        self.spec = spec
        self.window = spec.window(block)
        self.exclusive = block >= spec.num_layers - spec.xsa_last
        linear, group = LINEARS[spec.linear], spec.linear_group
        self.c_q = linear(spec.model_dim, spec.model_dim, group)
        self.c_k = linear(spec.model_dim, spec.kv_dim, group)
        self.c_v = linear(spec.model_dim, spec.kv_dim, group)
        self.proj = linear(spec.model_dim, spec.model_dim, group)
        self.q_gain = mx.zeros(spec.num_heads)
        if spec.attn_gate_dims:
            self.gate = Linear(spec.attn_gate_dims, spec.num_heads)
        self.takes_rows = spec.takes_rows(block)
        if self.takes_rows:
            self.value_mix = mx.zeros(1)
        if spec.shares_values(block):
            self.value_share = mx.zeros(1)

    def __call__(self, x: array, given: Given) -> array:
        spec, (rows, time, _) = self.spec, x.shape
        q = self.c_q(x).reshape(rows, time, spec.num_heads, spec.head_dim)
        k = self.c_k(x).reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        v = self.c_v(x).reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        v = self._with_values(v, given)
        q = rotate(rms_norm(q, spec.norm_eps), given.cos, given.sin)
        k = rotate(rms_norm(k, spec.norm_eps), given.cos, given.sin)
        q = q * self.q_gain[:, None].astype(q.dtype)
        y = attend(q, k, v, given.sees[self.window])
        if self.exclusive:
            y = exclusive(y, v)
        if spec.attn_gate_dims:
            opens = self.gate(x[..., : spec.attn_gate_dims])
            y = gated(y, opens, spec.attn_gate_scale, spec.attn_gate_gain)
        y = y.reshape(rows, time, spec.model_dim)
        return self.proj(rms_norm(y, spec.norm_eps) if spec.norm_out_proj else y)

    def _with_values(self, v: array, given: Given) -> array:
        """v with a share of the first visit's, and with rows of the value table."""
        if self.spec.value_residual and given.first_values:
            share = mx.sigmoid(self.value_share).astype(v.dtype)
            v = v + share * given.first_values[0]
        elif self.spec.value_residual:
            given.first_values.append(v)
        if self.takes_rows and given.value_rows is not None:
            v = v + self.value_mix.astype(v.dtype) * given.value_rows.reshape(v.shape)
        return v


class MLP(nn.Module):
    """Up, activation, down."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        linear, group = LINEARS[spec.linear], spec.linear_group
        self.fc = linear(spec.model_dim, spec.mlp_dim, group)
        self.proj = linear(spec.mlp_dim, spec.model_dim, group)
        if spec.activation == "swiglu":
            self.gate = linear(spec.model_dim, spec.mlp_dim, group)

    def __call__(self, x: array) -> array:
        h = ACTIVATIONS[self.spec.activation](self.fc(x), self.spec.leaky_slope)
        if self.spec.activation == "swiglu":
            h = h * self.gate(x)
        return self.proj(rms_norm(h, self.spec.norm_eps) if self.spec.norm_out_proj else h)


class Block(nn.Module):
    """What a route is made of: x0 mixed in, attention and MLP on a normalised input, scaled."""

    def __init__(self, spec: ModelSpec, block: int) -> None:
        super().__init__()
        self.spec = spec
        self.norm_scale = (block + 1) ** -0.5
        self.resid_mix = mx.zeros((2, spec.model_dim))
        self.attn_scale = mx.zeros(spec.model_dim)
        self.mlp_scale = mx.zeros(spec.model_dim)
        self.attn = Attention(spec, block)
        self.mlp = MLP(spec)

    def mixed(self, x: array, x0: array) -> array:
        """x with the first embeddings mixed in."""
        mix = self.resid_mix.astype(x.dtype)
        return mix[0] * x + mix[1] * x0

    def attended(self, x: array, given: Given) -> array:
        """What attention adds to x."""
        return self.attn_scale.astype(x.dtype) * self.attn(self._normed(x), given)

    def fed(self, x: array) -> array:
        """What the MLP adds to x."""
        return self.mlp_scale.astype(x.dtype) * self.mlp(self._normed(x))

    def _normed(self, x: array) -> array:
        x = rms_norm(x, self.spec.norm_eps)
        return x * self.norm_scale if self.spec.ln_scale else x


def serial(block: Block, x: array, given: Given) -> array:
    """Attention, then the MLP on what it made."""
    x = block.mixed(x, given.x0)
    x = x + block.attended(x, given)
    return x + block.fed(x)


def parallel(block: Block, x: array, given: Given) -> array:
    """Attention and MLP side by side on the same x (GPT-J)."""
    x = block.mixed(x, given.x0)
    return x + block.attended(x, given) + block.fed(x)


def lanes(
    block: Block, x: array, lane: array, resid: array, post: array, given: Given
) -> tuple[array, array]:
    """Attention reads x, the MLP reads the second lane, and both write into both.

    resid: (2,), what stays of each lane; post: (2, 2), from attention and MLP to each lane.
    """
    a = block.attended(block.mixed(x, given.x0), given)
    m = block.fed(lane)
    x = resid[0] * x + post[0, 0] * a + post[1, 0] * m
    return x, resid[1] * lane + post[0, 1] * a + post[1, 1] * m


def lanes_in_turn(
    block: Block, x: array, lane: array, resid: array, post: array, given: Given
) -> tuple[array, array]:
    """As lanes, but the MLP reads what attention has written, and x0 is mixed into both.

    resid: (2,), what stays of each lane, once for attention and once for the MLP.
    """
    x, lane = block.mixed(x, given.x0), block.mixed(lane, given.x0)
    a = block.attended(x, given)
    x, lane = resid[0] * x + post[0, 0] * a, resid[1] * lane + post[0, 1] * a
    m = block.fed(lane)
    return resid[0] * x + post[1, 0] * m, resid[1] * lane + post[1, 1] * m


ROUTES: dict[Routing, Callable[..., array]] = {"serial": serial, "parallel": parallel}
LANES: dict[Routing, Callable[..., tuple[array, array]]] = {
    "lanes": lanes,
    "lanes_in_turn": lanes_in_turn,
}
