"""The head and its loss in spans of rows: never are all logits held, nor gradients of them."""

from __future__ import annotations

import torch
from torch import Tensor

from backend_torch.kernels.entropy import launch
from core.arch.spec import Softcap

SPAN_LOGITS = 1 << 24  # held at a time: 32 MB in bf16, which the caches of Hopper still hold


@torch.library.custom_op("golf::head_in_spans", mutates_args=())
def _head_in_spans(
    x: Tensor, weight: Tensor, targets: Tensor, kind: str, cap: float, z_loss: float
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.zeros((), device=x.device)
    x_grad, weight_grad = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
    rows = max(SPAN_LOGITS // len(weight), 1)
    for at in range(0, len(x), rows):
        part, wanted = x[at : at + rows], targets[at : at + rows]
        logits = part @ weight.T
        total += launch(logits, logits, wanted, kind, cap, z_loss).sum()  # gradients in their place
        torch.mm(logits, weight, out=x_grad[at : at + rows])
        weight_grad += logits.T @ part
    return total, x_grad, weight_grad


@_head_in_spans.register_fake
def _(
    x: Tensor, weight: Tensor, targets: Tensor, kind: str, cap: float, z_loss: float
) -> tuple[Tensor, Tensor, Tensor]:
    total = x.new_empty((), dtype=torch.float32)
    return total, torch.empty_like(x), torch.empty_like(weight, dtype=torch.float32)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.kind = inputs[1].dtype


def _back(ctx, share, *_):
    x_grad, weight_grad = ctx.saved_tensors
    both = (x_grad * share).to(x_grad.dtype), (weight_grad * share).to(ctx.kind)
    return *both, None, None, None, None


_head_in_spans.register_autograd(_back, setup_context=_keep)


def summed_nats(
    x: Tensor, weight: Tensor, targets: Tensor, kind: Softcap, cap: float, z_loss: float = 0.0
) -> Tensor:
    """The sum of ops.cross_entropy of ops.softcap of x W^T, fp32.

    x: (B, T, C) and weight: (V, C), of one dtype; targets: (B, T) integers. The gradients are made
    on the way forward, for a sum of which every row is worth the same.
    """
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    total, *_ = _head_in_spans(rows, weight.contiguous(), targets.reshape(-1), kind, cap, z_loss)
    return total
