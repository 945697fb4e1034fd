"""Triton kernels that may stand in for verbs of ops.py; none is measured to win, so none is asked.

Each file imports Triton at once: so each is imported inside a function, when it is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from backend_torch.block import MLP, Attention, Given
from backend_torch.linear import Linear, Sides
from backend_torch.model import GPT


def put(model: GPT, names: Iterable[str] | None = None) -> None:
    """Kernels in the place of what they compute: on CUDA, or on CPUs by Triton's interpreter.

    names: of KERNELS; all of them, unless said. What they do not know stays as it is: other
    activations, ternary matrices, a head with a bias, stand-ins of a calibration. Raises ValueError
    where Triton is not installed or nothing here runs it.
    """
    if find_spec("triton") is None:
        raise ValueError("kernels on: Triton is not installed; kernels=off goes without")
    if not (torch.cuda.is_available() or import_module("triton").knobs.runtime.interpret):
        raise ValueError("kernels on: CUDA runs them, and there is none; kernels=off goes without")
    for name in KERNELS if names is None else names:
        KERNELS[name](model)


def put_entropy(model: GPT) -> None:
    """Nats and their gradients of each row of logits at once."""
    replace(model, "token_nats", _token_nats)


def put_spans(model: GPT) -> None:
    """What is trained on, in spans of rows."""
    replace(model, "forward", _summed)


def put_turned(model: GPT) -> None:
    """Norm, rotation and gain of queries and keys."""
    for part in model.modules():
        if isinstance(part, Attention):
            replace(part, "turned", _turned)


def put_squared(model: GPT) -> None:
    """The activation of the MLP at the end of its first product."""
    for part in model.modules():
        if isinstance(part, MLP) and part.spec.activation in ("relu2", "leaky_relu2"):
            replace(part, "forward", _fed)


KERNELS: dict[str, Callable[[GPT], None]] = {
    "entropy": put_entropy,
    "spans": put_spans,
    "turned": put_turned,
    "squared": put_squared,
}


def replace(part: torch.nn.Module, name: str, form: Callable[..., Any]) -> None:
    setattr(part, name, MethodType(form, part))


def products_dtype(x: Tensor) -> torch.dtype:
    """What products of x are taken in here."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _turned(part: Attention, q: Tensor, k: Tensor, given: Given) -> tuple[Tensor, Tensor]:
    from backend_torch.kernels.turned import turned

    q = turned(q, part.q_gain, *given.turns(), part.spec.norm_eps)
    return q, turned(k, None, given.cos, given.sin, part.spec.norm_eps)


def _fed(part: MLP, x: Tensor) -> Tensor:
    from backend_torch.kernels.squared import squared

    if not type(part.fc) is type(part.proj) is Linear or part.spec.norm_out_proj:
        return MLP.forward(part, x)
    slope = part.spec.leaky_slope if part.spec.activation == "leaky_relu2" else 0.0
    return squared(x.to(products_dtype(x)), part.fc.weight, part.proj.weight, slope)


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

    with autocast(model, tokens):
        x = model.hidden(tokens, phase, last, sides, cu_seqlens)
        logits = model.head(x, None if sides is None else sides[-1])
    spec = model.spec
    return capped_nats(logits, targets, spec.softcap, spec.logit_softcap, z_loss)


def _summed(
    model: GPT, x: Tensor, y: Tensor, phase: int, z_loss: float, cu_seqlens: Tensor | None
) -> Tensor:
    from backend_torch.kernels.spans import summed_nats

    spec = model.spec
    if spec.head_bias:
        return GPT.forward(model, x, y, phase, z_loss, cu_seqlens)
    with autocast(model, x):
        held = model.hidden(x, phase, 0, None, cu_seqlens)
        held = held if spec.embed_dim is None else model.embed_out(held)
        kind = products_dtype(held)
    weight = model.tok_emb.weight if spec.tie_embeddings else model.lm_head.weight
    given = held.to(kind), weight.to(kind), y
    return summed_nats(*given, spec.softcap, spec.logit_softcap, z_loss)


def autocast(model: GPT, tokens: Tensor) -> torch.autocast:
    on = model.precision == "autocast"
    return torch.autocast(tokens.device.type, torch.bfloat16, enabled=on)
