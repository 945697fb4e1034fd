"""The block: attention, MLP, and the routes that x takes through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from backend_torch.attend import attend, attend_documents, last_sees
from backend_torch.linear import LINEARS, Linear, Side, beside
from backend_torch.ops import ACTIVATIONS, exclusive, gated, rms_norm, rotate
from core.arch.spec import ModelSpec, Routing


class Given(NamedTuple):
    """What every block is given beside x."""

    x0: Tensor  # (B, T, C), the normalised embeddings
    cos: Tensor  # (T, R/2)
    sin: Tensor
    sees: Mapping[int, Tensor | None]  # by window: (B or 1, T, T), or plain causal attention
    value_rows: Tensor | None  # (B, T, H_kv D), of the value table
    first_values: list[Tensor]  # (B, T, H_kv, D), of the first visit, once it has been made
    cu_seqlens: Tensor | None = None  # (N + 1,) of the documents, where there is no mask for them
    last: int = 0  # of how many positions, at the end, anything is asked on this visit; 0: of all

    def asked(self, x: Tensor) -> Tensor:
        """Those of (B, T, ...) that anything is asked of."""
        return x[:, -self.last :] if self.last else x

    def turns(self) -> tuple[Tensor, Tensor]:
        """cos and sin of the queries."""
        if self.last:
            return self.cos[-self.last :], self.sin[-self.last :]
        return self.cos, self.sin


def ending(given: Given, last: int) -> Given:
    """For the last visit, where only the last positions are asked for."""
    sees = {window: last_sees(seen, given.x0, last) for window, seen in given.sees.items()}
    return given._replace(sees=sees, last=last)


class Attention(nn.Module):
    """Causal grouped-query attention with normalised queries and keys and a gain per head."""

    def __init__(self, spec: ModelSpec, block: int) -> None:
        super().__init__()
        self.spec = spec
        self.window = spec.window(block)
        self.exclusive = spec.xsa_last > 0 and block >= spec.num_layers - spec.xsa_last
        linear, at = LINEARS[spec.linear], f"blocks.{block}.attn"
        self.c_q = linear(spec, f"{at}.c_q", spec.model_dim, spec.model_dim)
        self.c_k = linear(spec, f"{at}.c_k", spec.model_dim, spec.kv_dim)
        self.c_v = linear(spec, f"{at}.c_v", spec.model_dim, spec.kv_dim)
        self.proj = linear(spec, f"{at}.proj", spec.model_dim, spec.model_dim)
        self.q_gain = nn.Parameter(torch.zeros(spec.num_heads))
        if spec.attn_gate_dims:
            self.gate = Linear(spec.attn_gate_dims, spec.num_heads)
        self.takes_rows = spec.takes_rows(block)
        if self.takes_rows:
            self.value_mix = nn.Parameter(torch.zeros(1))
        if spec.shares_values(block):
            self.value_share = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, given: Given, side: Side | None = None) -> Tensor:
        spec, (rows, time, _) = self.spec, x.shape
        asked = given.asked(x)
        q, k, v = self.c_q(asked), self.c_k(x), self.c_v(x)
        if side is not None:
            q, k = beside(q, asked, side["c_q"]), beside(k, x, side["c_k"])
            v = beside(v, x, side["c_v"])
        q = q.reshape(*asked.shape[:2], spec.num_heads, spec.head_dim)
        k = k.reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        v = v.reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        v = self._with_values(v, given)
        q, k = self.turned(q, k, given)
        if spec.doc_mask and given.cu_seqlens is not None:
            y = attend_documents(q, k, v, given.cu_seqlens, self.window)
        else:
            y = attend(q, k, v, given.sees[self.window])
        if self.exclusive:
            y = exclusive(y, given.asked(v))
        if spec.attn_gate_dims:
            opens = self.gate(asked[..., : spec.attn_gate_dims])
            y = gated(y, opens, spec.attn_gate_scale, spec.attn_gate_gain)
        y = y.reshape(asked.shape)
        y = self.proj(rms_norm(y, spec.norm_eps) if spec.norm_out_proj else y)
        return y if side is None else beside(y, asked, side["proj"])

    def turned(self, q: Tensor, k: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Queries and keys, normalised and turned to their places, and the gain of the queries."""
        q = rotate(rms_norm(q, self.spec.norm_eps), *given.turns())
        k = rotate(rms_norm(k, self.spec.norm_eps), given.cos, given.sin)
        return q * self.q_gain[:, None].to(q.dtype), k

    def _with_values(self, v: Tensor, given: Given) -> Tensor:
        """v with a share of the first visit's, and with rows of the value table."""
        if self.spec.value_residual and given.first_values:
            share = torch.sigmoid(self.value_share).to(v.dtype)
            v = v + share * given.first_values[0]
        elif self.spec.value_residual:
            given.first_values.append(v)
        if self.takes_rows and given.value_rows is not None:
            v = v + self.value_mix.to(v.dtype) * given.value_rows.reshape(v.shape)
        return v


class MLP(nn.Module):
    """Up, activation, down."""

    def __init__(self, spec: ModelSpec, block: int) -> None:
        super().__init__()
        self.spec = spec
        linear, at = LINEARS[spec.linear], f"blocks.{block}.mlp"
        self.fc = linear(spec, f"{at}.fc", spec.model_dim, spec.mlp_dim)
        self.proj = linear(spec, f"{at}.proj", spec.mlp_dim, spec.model_dim)
        if spec.activation == "swiglu":
            self.gate = linear(spec, f"{at}.gate", spec.model_dim, spec.mlp_dim)

    def forward(self, x: Tensor) -> Tensor:
        h = ACTIVATIONS[self.spec.activation](self.fc(x), self.spec.leaky_slope)
        if self.spec.activation == "swiglu":
            h = h * self.gate(x)
        return self.proj(rms_norm(h, self.spec.norm_eps) if self.spec.norm_out_proj else h)


class Block(nn.Module):
    """What a route is made of: x0 mixed in, attention and MLP on a normalised input, scaled.

    With partial tying some blocks have an attention alone, and some an MLP alone.
    """

    def __init__(self, spec: ModelSpec, block: int) -> None:
        super().__init__()
        self.spec = spec
        self.norm_scale = (block + 1) ** -0.5
        if block in spec.attn_blocks:
            self.resid_mix = nn.Parameter(torch.zeros(2, spec.model_dim))
            self.attn_scale = nn.Parameter(torch.zeros(spec.model_dim))
            self.attn = Attention(spec, block)
        if block in spec.mlp_blocks:
            self.mlp_scale = nn.Parameter(torch.zeros(spec.model_dim))
            self.mlp = MLP(spec, block)

    def mixed(self, x: Tensor, x0: Tensor) -> Tensor:
        """x with the first embeddings mixed in."""
        mix = self.resid_mix.to(x.dtype)
        return mix[0] * x + mix[1] * x0

    def attention_of(self, x: Tensor, given: Given, side: Side | None) -> Tensor:
        """What attention adds to x."""
        return self.attn_scale.to(x.dtype) * self.attn(self._normed(x), given, side)

    def mlp_of(self, x: Tensor, side: Side | None) -> Tensor:
        """What the MLP adds to x."""
        normed = self._normed(x)
        y = self.mlp(normed)
        if side is not None:
            y = beside(y, normed, side["mlp"])
        return self.mlp_scale.to(x.dtype) * y

    def _normed(self, x: Tensor) -> Tensor:
        x = rms_norm(x, self.spec.norm_eps)
        return x * self.norm_scale if self.spec.ln_scale else x


class Layer(NamedTuple):
    """What one visit takes: an attention and an MLP, mostly of one block, and their shares."""

    attn: Block
    mlp: Block
    shares: Tensor | None  # (2,), of what attention and the MLP add; none: all of it
    side: Side | None = None  # adapters of this visit

    def mixed(self, x: Tensor, x0: Tensor) -> Tensor:
        """x with the first embeddings mixed in, as the attention's block has it."""
        return self.attn.mixed(x, x0)

    def attended(self, x: Tensor, given: Given) -> Tensor:
        """What attention adds to x on this visit."""
        added = self.attn.attention_of(x, given, self.side)
        return added if self.shares is None else self.shares[0] * added

    def fed(self, x: Tensor) -> Tensor:
        """What the MLP adds to x on this visit."""
        added = self.mlp.mlp_of(x, self.side)
        return added if self.shares is None else self.shares[1] * added


def serial(layer: Layer, x: Tensor, given: Given) -> Tensor:
    """Attention, then the MLP on what it made."""
    x = layer.mixed(x, given.x0)
    x = given.asked(x) + layer.attended(x, given)
    return x + layer.fed(x)


def parallel(layer: Layer, x: Tensor, given: Given) -> Tensor:
    """Attention and MLP side by side on the same x (GPT-J)."""
    x = layer.mixed(x, given.x0)
    asked = given.asked(x)
    return asked + layer.attended(x, given) + layer.fed(asked)


def lanes(
    layer: Layer, x: Tensor, lane: Tensor, resid: Tensor, post: Tensor, given: Given
) -> tuple[Tensor, Tensor]:
    """Attention reads x, the MLP reads the second lane, and both write into both.

    resid: (2,), what stays of each lane; post: (2, 2), from attention and MLP to each lane.
    """
    a = layer.attended(layer.mixed(x, given.x0), given)
    x, lane = given.asked(x), given.asked(lane)
    m = layer.fed(lane)
    x = resid[0] * x + post[0, 0] * a + post[1, 0] * m
    return x, resid[1] * lane + post[0, 1] * a + post[1, 1] * m


def lanes_in_turn(
    layer: Layer, x: Tensor, lane: Tensor, resid: Tensor, post: Tensor, given: Given
) -> tuple[Tensor, Tensor]:
    """As lanes, but the MLP reads what attention has written, and x0 is mixed into both.

    resid: (2,), what stays of each lane, once for attention and once for the MLP.
    """
    x, lane = layer.mixed(x, given.x0), layer.mixed(lane, given.x0)
    a = layer.attended(x, given)
    x, lane = given.asked(x), given.asked(lane)
    x, lane = resid[0] * x + post[0, 0] * a, resid[1] * lane + post[0, 1] * a
    m = layer.fed(lane)
    return resid[0] * x + post[1, 0] * m, resid[1] * lane + post[1, 1] * m


ROUTES: dict[Routing, Callable[..., Tensor]] = {"serial": serial, "parallel": parallel}
LANES: dict[Routing, Callable[..., tuple[Tensor, Tensor]]] = {
    "lanes": lanes,
    "lanes_in_turn": lanes_in_turn,
}
