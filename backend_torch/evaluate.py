"""Tokens -> nats: what core's scorer asks of an engine; and the next token's logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from backend_torch.distributed import Solo, open_group
from backend_torch.model import GPT
from backend_torch.weights import load_weights
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

    @torch.no_grad()
    def nats(self, x: Rows, y: Rows) -> NDArray[np.float32]:
        """Nats of each target, float32 (B, L). x: int32 (B, T); y: (B, L), behind its last L."""
        device = self.model.tok_emb.weight.device
        last = y.shape[1] if self.slides and y.shape != x.shape else 0
        tokens, targets = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
        return self.model.token_nats(tokens, targets, self.phase, last=last).cpu().numpy()

    @torch.no_grad()
    def log_probs(self, x: Rows, last: int) -> NDArray[np.float32]:
        """Log-probabilities behind the last positions, float32 (B, last, V). x: int32 (B, T)."""
        tokens = torch.from_numpy(x).to(self.model.tok_emb.weight.device)
        logits = self.model.logits(tokens, self.phase, last).float()
        return torch.log_softmax(logits, -1).cpu().numpy()

    @torch.no_grad()
    def next_logits(self, x: Rows) -> NDArray[np.float32]:
        """Logits of the token after each row, float32 (B, V). x: int32 (B, T)."""
        tokens = torch.from_numpy(x).to(self.model.tok_emb.weight.device)
        return self.model.logits(tokens, self.phase, 1)[:, -1].float().cpu().numpy()


def open_evaluator(
    weights: Weights, spec: ModelSpec, precision: Precision, group: Solo | None = None
) -> Evaluator:
    """A model with these weights on this machine's device, or on that of the group."""
    device = (group or open_group()).device
    model = GPT(spec, precision).to(device)
    load_weights(model, weights, spec)
    return Evaluator(model)
