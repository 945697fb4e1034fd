"""Tokens -> nats: what core's scorer asks of an engine; and the next token's logits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from backend_mlx.distributed import Solo, open_group
from backend_mlx.model import GPT
from backend_mlx.weights import load_weights
from core.arch.params import Weights
from core.arch.spec import ModelSpec
from core.train.recipe import Precision

Rows = NDArray[np.int32]


class Evaluator:
    """A model as core sees it: numpy in, numpy out, no gradients."""

    def __init__(self, model: GPT, phase: int = -1, slides: bool = True) -> None:
        """slides: whether fewer targets may be asked for than there are positions."""
        self.model = model
        self.phase = phase
        self.slides = slides

    def nats(self, x: Rows, y: Rows) -> NDArray[np.float32]:
        """Nats of each target, float32 (B, L). x: int32 (B, T); y: (B, L), behind its last L."""
        last = y.shape[1] if self.slides and y.shape != x.shape else 0
        tokens, targets = mx.array(x), mx.array(y)
        return np.array(self.model.token_nats(tokens, targets, self.phase, last=last))

    def log_probs(self, x: Rows, last: int) -> NDArray[np.float32]:
        """Log-probabilities behind the last positions, float32 (B, last, V). x: int32 (B, T)."""
        tokens = mx.array(x)
        logits = self.model.logits(tokens, self.phase, last).astype(mx.float32)
        return np.array(logits - mx.logsumexp(logits, -1, keepdims=True))

    def next_logits(self, x: Rows) -> NDArray[np.float32]:
        """Logits of the token after each row, float32 (B, V). x: int32 (B, T)."""
        tokens = mx.array(x)
        return np.array(self.model.logits(tokens, self.phase, 1)[:, -1].astype(mx.float32))


def open_evaluator(
    weights: Weights, spec: ModelSpec, precision: Precision, group: Solo | None = None
) -> Evaluator:
    """A model with these weights on this machine's device, or on that of the group."""
    if group is None:
        open_group()  # chooses the device
    model = GPT(spec, precision)
    load_weights(model, weights, spec)
    return Evaluator(model)
