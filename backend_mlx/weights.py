"""A model's parameters <-> {name: float32 numpy}: the names and shapes of core's table."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.core import array
from mlx.utils import tree_flatten

from core.arch.params import Weights, check_weights
from core.arch.spec import ModelSpec


def parameters(model: nn.Module) -> dict[str, array]:
    """The live parameters by name."""
    return dict(tree_flatten(model.parameters()))


def load_weights(model: nn.Module, weights: Weights, spec: ModelSpec) -> None:
    """Copy every weight in; names and shapes must be the table's and the model's."""
    check_weights(weights, spec, "load_weights")
    own = parameters(model)
    assert own.keys() == weights.keys(), own.keys() ^ weights.keys()
    model.load_weights([(name, mx.array(weights[name])) for name in own])


def narrowed(weights: dict[str, array], names: list[str]) -> dict[str, array]:
    """The weights, these in bf16: so they are rounded once a step, not once a micro-batch."""
    return weights | {name: weights[name].astype(mx.bfloat16) for name in names}


def added(grads: dict[str, array], more: dict[str, array]) -> dict[str, array]:
    """Gradients with those of one more micro-batch, in fp32 where a weight is given in bf16."""
    wide = {name: g.astype(mx.float32) if g.dtype == mx.bfloat16 else g for name, g in more.items()}
    return {name: grads[name] + g for name, g in wide.items()} if grads else wide


def to_numpy(tensors: dict[str, array]) -> Weights:
    """Copies, float32, on the host."""
    return {name: np.array(t.astype(mx.float32)) for name, t in tensors.items()}
