"""Softcap and cross-entropy of a row of logits by one kernel, which makes the gradient too."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core.arch.spec import Softcap

KINDS: dict[str, int] = {"none": 0, "tanh": 1, "poly5": 2}


@triton.jit
def _row(logits, grads, targets, nats, vocab, cap, z_loss, KIND: tl.constexpr, B: tl.constexpr):
    """One row: nats of its target, and their gradient."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, B)
    inside = at < vocab
    z = tl.load(logits + row * vocab + at, mask=inside, other=0.0).to(tl.float32)
    slope = tl.full((B,), 1.0, tl.float32)
    if KIND == 1:
        bent = 2.0 * tl.sigmoid(2.0 * z / cap) - 1.0  # tanh
        z, slope = cap * bent, 1.0 - bent * bent
    if KIND == 2:
        u = z * (8.0 / (15.0 * cap))
        u = tl.where(u > 1.0, 1.0, tl.where(u < -1.0, -1.0, u))  # a NaN stays one
        square = u * u
        z = (cap / 8.0) * u * (15.0 + square * (3.0 * square - 10.0))
        slope = (1.0 - square) * (1.0 - square)
    top = tl.max(tl.where(inside, z, -float("inf")), 0)
    shares = tl.where(inside, tl.exp(z - top), 0.0)
    total = tl.sum(shares, 0)
    log_sum = tl.log(total) + top
    hit = at == tl.load(targets + row)
    tl.store(nats + row, log_sum - tl.sum(tl.where(hit, z, 0.0), 0) + z_loss * log_sum * log_sum)
    grad = shares / total * (1.0 + 2.0 * z_loss * log_sum) - tl.where(hit, 1.0, 0.0)
    grad = (slope * grad).to(grads.dtype.element_ty)
    tl.store(grads + row * vocab + at, grad, mask=inside)


def launch(
    logits: Tensor,
    grads: Tensor,
    targets: Tensor,
    kind: str,
    cap: float,
    z_loss: float,
) -> Tensor:
    rows, vocab = logits.shape
    nats = torch.empty(rows, dtype=torch.float32, device=logits.device)
    width = triton.next_power_of_2(vocab)
    given = (logits, grads, targets, nats, vocab, cap, z_loss)
    warps = min(16, max(4, width // 1024))
    _row[(rows,)](*given, KIND=KINDS[kind if cap else "none"], B=width, num_warps=warps)
    return nats


@torch.library.custom_op("golf::capped_nats", mutates_args=())
def _capped_nats(
    logits: Tensor, targets: Tensor, kind: str, cap: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    grads = torch.empty_like(logits)
    return launch(logits, grads, targets, kind, cap, z_loss), grads


@_capped_nats.register_fake
def _(
    logits: Tensor, targets: Tensor, kind: str, cap: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    return logits.new_empty(len(logits), dtype=torch.float32), torch.empty_like(logits)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _back(ctx, nats, _):
    (grads,) = ctx.saved_tensors
    return (grads * nats[:, None]).to(grads.dtype), None, None, None, None


_capped_nats.register_autograd(_back, setup_context=_keep)


def capped_nats(
    logits: Tensor, targets: Tensor, kind: Softcap, cap: float, z_loss: float = 0.0
) -> Tensor:
    """ops.softcap, then ops.cross_entropy: nats, fp32 like targets. logits: (..., V), any float.

    Read once and written once, as their gradient, in arithmetic of fp32.
    """
    rows = logits.reshape(-1, logits.shape[-1]).contiguous()
    nats, _ = _capped_nats(rows, targets.reshape(-1), kind, cap, z_loss)
    return nats.view(targets.shape)
