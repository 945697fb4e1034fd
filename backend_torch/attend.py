"""attend(q, k, v): causal attention through the best kernel at hand, and which one that is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax(q k^T / sqrt(D)) v. q: (B, T, H, D); k, v: (B, T, H_kv, D); out like q.

    Each key-value head serves H / H_kv query heads, in order, without being repeated.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    shared = k.shape[1] != q.shape[1]
    if q.is_cuda:
        with sdpa_kernel(_cuda_order(q.device), set_priority=True):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
    else:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
    return y.transpose(1, 2)


def attention_choice(device: torch.device) -> str:
    """The kernel order that `attend` asks for on this device, and why."""
    if device.type != "cuda":
        return f"sdpa({device.type})"
    first = _cuda_order(device)[0].name.lower()
    major, minor = torch.cuda.get_device_capability(device)
    return f"sdpa({first} first, compute capability {major}.{minor})"


@torch.compiler.assume_constant_result
def _cuda_order(device: torch.device) -> list[SDPBackend]:
    """cuDNN first on Hopper, where it is the faster one at head_dim 64; flash elsewhere."""
    if torch.cuda.get_device_capability(device)[0] == 9:
        return KERNELS
    return KERNELS[1:]
