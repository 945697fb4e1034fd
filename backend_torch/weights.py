"""A model's parameters <-> {name: float32 numpy}: the names and shapes of core's table."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from core.arch.params import Weights, check_weights
from core.arch.spec import ModelSpec


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """The live parameters by name."""
    return dict(model.named_parameters())


def load_weights(model: nn.Module, weights: Weights, spec: ModelSpec) -> None:
    """Copy every weight in; names and shapes must be the table's and the model's."""
    check_weights(weights, spec, "load_weights")
    own = parameters(model)
    assert own.keys() == weights.keys(), own.keys() ^ weights.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.tensor(weights[name]))


def narrowed(weights: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The weights, these in bf16: so they are rounded once a step, not once a micro-batch."""
    return weights | {name: weights[name].detach().bfloat16().requires_grad_() for name in names}


def added(grads: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients with those of one more micro-batch, in fp32 where a weight is given in bf16."""
    wide = {name: g.float() if g.dtype == torch.bfloat16 else g for name, g in more.items()}
    return {name: grads[name] + g for name, g in wide.items()} if grads else wide


def to_numpy(tensors: dict[str, Tensor]) -> Weights:
    """Copies, float32, on the host."""
    return {name: t.detach().float().cpu().numpy().copy() for name, t in tensors.items()}
