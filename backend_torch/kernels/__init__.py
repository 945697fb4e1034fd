"""Triton kernels that may stand in for verbs of ops.py; none is measured to win, so none is asked.

Each file imports Triton at once: so each is imported inside a function, when it is wanted.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import MethodType

import torch
from torch import Tensor

from backend_torch.block import MLP, Attention, Given
from backend_torch.linear import Linear, Sides
from backend_torch.model import GPT


def put(model: GPT) -> None:
    """Kernels in the place of what they compute: on CUDA, or on CPUs by Triton's interpreter.

    What they do not know stays as it is: other activations, ternary matrices, stand-ins of a
    calibration. Raises ValueError where Triton is not installed.
    """
    if find_spec("triton") is None:
        raise ValueError("kernels on: Triton is not installed; kernels=off goes without")
    model.token_nats = MethodType(_token_nats, model)  # type: ignore[method-assign]
    for part in model.modules():
        if isinstance(part, Attention):
            part.turned = MethodType(_turned, part)  # type: ignore[method-assign]
        elif isinstance(part, MLP) and part.spec.activation in ("relu2", "leaky_relu2"):
            part.forward = MethodType(_fed, part)  # type: ignore[method-assign]


def _turned(part: Attention, q: Tensor, k: Tensor, given: Given) -> tuple[Tensor, Tensor]:
    from backend_torch.kernels.turned import turned

    q = turned(q, part.q_gain, *given.turns(), part.spec.norm_eps)
    return q, turned(k, None, given.cos, given.sin, part.spec.norm_eps)


def _fed(part: MLP, x: Tensor) -> Tensor:
    from backend_torch.kernels.squared import squared

    if not type(part.fc) is type(part.proj) is Linear or part.spec.norm_out_proj:
        return MLP.forward(part, x)
    slope = part.spec.leaky_slope if part.spec.activation == "leaky_relu2" else 0.0
    kind = (
        torch.get_autocast_dtype(x.device.type)
        if torch.is_autocast_enabled(x.device.type)
        else x.dtype
    )
    return squared(x.to(kind), part.fc.weight, part.proj.weight, slope)


def _token_nats(
    model: GPT,
    tokens: Tensor,
    targets: Tensor,
    phase: int = -1,
    z_loss: float = 0.0,
    last: int = 0,
    sides: Sides | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    from backend_torch.kernels.entropy import capped_nats

    autocast = model.precision == "autocast"
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=autocast):
        logits = model.uncapped(tokens, phase, last, sides, cu_seqlens)
    spec = model.spec
    return capped_nats(logits, targets, spec.softcap, spec.logit_softcap, z_loss)
