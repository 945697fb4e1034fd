"""The MLP of a squared (leaky) ReLU: the activation at the end of its products, both ways."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILES = {"M": 64, "N": 64, "K": 32}


@triton.jit
def _product(
    a, b, first, out, m, n, k: tl.constexpr, b_row, b_column, slope,
    BACK: tl.constexpr, WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """first = a b and out = its activation, squared; or BACK: out = a b times its slope at first.

    a: (m, k), first and out: (m, n), contiguous; b: (k, n) by its strides.
    """
    row = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    column = tl.program_id(1) * N + tl.arange(0, N)
    total = tl.zeros((M, N), tl.float32)
    for begin in range(0, k, K):
        at = begin + tl.arange(0, K)
        left = (row < m)[:, None] & (at < k)[None, :]
        right = (at < k)[:, None] & (column < n)[None, :]
        x = tl.load(a + row[:, None] * k + at[None, :], mask=left, other=0.0)
        y = tl.load(b + at[:, None] * b_row + column[None, :] * b_column, mask=right, other=0.0)
        if WIDE:  # Triton's interpreter would multiply the bits of bf16
            x, y = x.to(tl.float32), y.to(tl.float32)
        total = tl.dot(x, y, total, input_precision="ieee")
    place = row[:, None] * n + column[None, :]
    inside = (row < m)[:, None] & (column < n)[None, :]
    kind = out.dtype.element_ty
    if BACK:
        h = tl.load(first + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(
            out + place, (total * tl.where(h > 0, 2 * h, 2 * slope * slope * h)).to(kind), inside
        )
    else:
        tl.store(first + place, total.to(kind), inside)
        h = total.to(kind).to(tl.float32)
        h = tl.where(h > 0, h, slope * h)
        tl.store(out + place, (h * h).to(kind), inside)


def _run(a: Tensor, b: Tensor, first: Tensor, out: Tensor, slope: float, back: bool) -> None:
    (m, k), n = a.shape, b.shape[1]
    grid = (triton.cdiv(m, TILES["M"]), triton.cdiv(n, TILES["N"]))
    _product[grid](
        a, b, first, out, m, n, k, *b.stride(), slope, BACK=back, WIDE=not a.is_cuda, **TILES
    )


@torch.library.custom_op("golf::squared_up", mutates_args=())
def _up(x: Tensor, fc: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    first = x.new_empty(len(x), len(fc))
    out = torch.empty_like(first)
    _run(x, fc.mT, first, out, slope, back=False)
    return first, out


@_up.register_fake
def _(x: Tensor, fc: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), len(fc)), x.new_empty(len(x), len(fc))


@torch.library.custom_op("golf::squared_down_back", mutates_args=())
def _down_back(dy: Tensor, proj: Tensor, first: Tensor, slope: float) -> Tensor:
    out = torch.empty_like(first)
    _run(dy, proj, first, out, slope, back=True)
    return out


@_down_back.register_fake
def _(dy: Tensor, proj: Tensor, first: Tensor, slope: float) -> Tensor:
    return torch.empty_like(first)


class _Squared(torch.autograd.Function):
    """Four plain products, and the two with the activation at their end."""

    @staticmethod
    def forward(ctx, x, fc, proj, slope):
        first, h = _up(x, fc, slope)
        ctx.save_for_backward(x, fc, proj, first, h)
        ctx.slope = slope
        return h @ proj.mT

    @staticmethod
    def backward(ctx, dy):
        x, fc, proj, first, h = ctx.saved_tensors
        dy = dy.contiguous()
        dfirst = _down_back(dy, proj, first, ctx.slope)
        return dfirst @ fc, dfirst.mT @ x, dy.mT @ h, None


def squared(x: Tensor, fc: Tensor, proj: Tensor, slope: float) -> Tensor:
    """proj of ops.leaky_relu2 of fc of x, out in x's dtype.

    x: (..., in); fc: (hidden, in), proj: (out, hidden), fp32.
    """
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y = _Squared.apply(rows, fc.to(x.dtype), proj.to(x.dtype), slope)
    return y.view(*x.shape[:-1], len(proj))
