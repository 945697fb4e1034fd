"""Norm, rotation and gain of queries and keys by one kernel, forward and backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # of one program


@triton.jit
def _places(rows, time, heads, half, dims, cos, sin, R: tl.constexpr, D: tl.constexpr):
    """Rows and columns of a program, what each is paired with, and by what they turn."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    at = tl.arange(0, D)
    inside = (row < rows)[:, None] & (at < dims)[None, :]
    turns = at < 2 * half
    other = tl.where(at < half, at + half, tl.where(turns, at - half, at))
    table = ((row // heads) % time)[:, None] * half + tl.where(at < half, at, at - half)[None, :]
    there = inside & turns[None, :]
    c = tl.load(cos + table, mask=there, other=1.0)
    s = tl.load(sin + table, mask=there, other=0.0)
    s = tl.where((at < half)[None, :], s, -s)
    first = row[:, None] * dims
    return row, first + at[None, :], first + other[None, :], inside, c, s


@triton.jit
def _forward(
    x, gain, cos, sin, y, rows, time, heads, half, dims, eps, R: tl.constexpr, D: tl.constexpr
):
    row, own, other, inside, c, s = _places(rows, time, heads, half, dims, cos, sin, R, D)
    a = tl.load(x + own, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + other, mask=inside, other=0.0).to(tl.float32)
    root = 1.0 / tl.sqrt(tl.sum(a * a, 1) / dims + eps)
    scale = root * tl.load(gain + row % heads, mask=row < rows, other=0.0)
    tl.store(y + own, ((a * c + b * s) * scale[:, None]).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    dy, x, gain, cos, sin, dx, dgain, rows, time, heads, half, dims, eps,
    R: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    row, own, other, inside, c, s = _places(rows, time, heads, half, dims, cos, sin, R, D)
    a = tl.load(x + own, mask=inside, other=0.0).to(tl.float32)
    root = 1.0 / tl.sqrt(tl.sum(a * a, 1) / dims + eps)
    unit = a * root[:, None]
    d = tl.load(dy + own, mask=inside, other=0.0).to(tl.float32)
    e = tl.load(dy + other, mask=inside, other=0.0).to(tl.float32)
    back = tl.where(inside, d * c - e * s, 0.0)  # turned by the opposite angle
    along = tl.sum(back * unit, 1)
    tl.store(dgain + row, along, mask=row < rows)
    scale = root * tl.load(gain + row % heads, mask=row < rows, other=0.0)
    grad = (back - unit * (along / dims)[:, None]) * scale[:, None]
    tl.store(dx + own, grad.to(dx.dtype.element_ty), mask=inside)


@torch.library.custom_op("golf::turned", mutates_args=())
def _turned(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    y = torch.empty_like(x)
    _forward[_grid(x)](x, gain, cos, sin, y, *_sizes(x, cos), eps, **_blocks(x))
    return y


@_turned.register_fake
def _(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("golf::turned_back", mutates_args=())
def _turned_back(
    dy: Tensor, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x)
    dgain = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device)
    given = (dy.contiguous(), x, gain, cos, sin, dx, dgain)
    _backward[_grid(x)](*given, *_sizes(x, cos), eps, **_blocks(x))
    return dx, dgain


@_turned_back.register_fake
def _(
    dy: Tensor, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:3], dtype=torch.float32)


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _back(ctx, dy):
    dx, dgain = _turned_back(dy, *ctx.saved_tensors, ctx.eps)
    return dx, dgain.sum((0, 1)), None, None, None


_turned.register_autograd(_back, setup_context=_keep)


def turned(x: Tensor, gain: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """ops.rms_norm, ops.rotate, and the gain of each head, or none.

    x: (B, T, H, D) in any float; gain: (H,) fp32; cos, sin: (T, R/2) fp32.
    """
    gain = torch.ones(x.shape[2], device=x.device) if gain is None else gain
    return _turned(x.contiguous(), gain, cos.contiguous(), sin.contiguous(), eps)


def _sizes(x: Tensor, cos: Tensor) -> tuple[int, ...]:
    batch, time, heads, dims = x.shape
    return batch * time * heads, time, heads, cos.shape[-1], dims


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel() // x.shape[-1], ROWS),)


def _blocks(x: Tensor) -> dict[str, int]:
    return {"R": ROWS, "D": triton.next_power_of_2(x.shape[-1])}
