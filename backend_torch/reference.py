"""The step in the reference scripts' form, for benchmarks alone: what it costs not to batch.

Newton-Schulz one matrix at a time, Adam and the average one tensor at a time, the optimizer not
compiled, attention by the framework's one function, and the host reads the loss of every step. The
model is else the project's, compiled as the recipe says. Written out here, so that a faster step
elsewhere leaves the yardstick as long as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from backend_torch import block
from backend_torch.distributed import Solo
from backend_torch.feeder import MicroBatch
from backend_torch.model import GPT
from backend_torch.weights import load_weights, parameters
from core.arch.params import init_params, param_table
from core.arch.spec import ModelSpec
from core.train.newton_schulz import NORM_EPS, ROW_EPS, coefficients
from core.train.recipe import Optim, Recipe
from core.train.schedules import Knobs, rates

Arrays = dict[str, Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CLIP_EPS = 1e-6  # added to the norm, as torch's clip_grad_norm_ does


class ReferenceOptimizer:
    """Muon for matrices, Adam for the rest, one tensor after the other."""

    def __init__(self, spec: ModelSpec, optim: Optim) -> None:
        if optim.row_beta2 or optim.rate_lambda:
            raise ValueError("the reference form has no optim.row_beta2 and no optim.rate_lambda")
        self.optim = optim
        self.rows = [(row.rule, row.name) for row in param_table(spec)]
        self.table = coefficients(optim.ns_table, optim.ns_steps)

    def start(self, weights: Arrays) -> Arrays:
        """The state before the first step."""
        state = {f"weight/{name}": weight for name, weight in weights.items()}
        for rule, name in self.rows:
            for part in ("momentum",) if rule == "matrix" else ("adam_mean", "adam_square"):
                state[f"{part}/{name}"] = torch.zeros_like(weights[name])
        if self.optim.averages:
            state |= {f"ema/{n}": weight.detach().clone() for n, weight in weights.items()}
        return state

    @torch.no_grad()
    def update(self, state: Arrays, grads: Arrays, knobs: Knobs) -> None:
        """One step of every rule, then of the average."""
        dials = rates(self.optim, knobs)
        if self.optim.grad_clip_norm:
            grads = clipped(grads, self.optim.grad_clip_norm)
        for rule, name in self.rows:
            move = self._matrix if rule == "matrix" else self._other
            weight = state[f"weight/{name}"]
            weight.mul_(1.0 - dials.get(f"{rule}_decay", 0.0)).sub_(
                move(state, name, grads[name], dials, rule)
            )
        if self.optim.averages:
            kept = dials["ema_decay"]
            for _, name in self.rows:
                state[f"ema/{name}"].mul_(kept).add_(state[f"weight/{name}"], alpha=1.0 - kept)

    def _matrix(
        self, state: Arrays, name: str, grad: Tensor, dials: dict[str, float], rule: str
    ) -> Tensor:
        """What Muon takes off one matrix."""
        momentum = state[f"momentum/{name}"]
        momentum.mul_(dials["momentum"]).add_(grad)
        update = grad + dials["momentum"] * momentum
        if self.optim.row_norm == "l2":
            update /= torch.clamp(torch.linalg.vector_norm(update, dim=1, keepdim=True), ROW_EPS)
        x = update / (torch.linalg.vector_norm(update) + NORM_EPS)
        x = x.to(DTYPES[self.optim.ns_precision])
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        for a, b, c in self.table:
            gram = x @ x.T
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        x = x.T if tall else x
        return dials[rule] * math.sqrt(max(1.0, x.shape[0] / x.shape[1])) * x.to(grad.dtype)

    def _other(
        self, state: Arrays, name: str, grad: Tensor, dials: dict[str, float], rule: str
    ) -> Tensor:
        """What Adam takes off one tensor."""
        mean, square = state[f"adam_mean/{name}"], state[f"adam_square/{name}"]
        beta1, beta2 = self.optim.betas(rule)
        mean.mul_(beta1).add_(grad, alpha=1.0 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        root = torch.sqrt(square) / math.sqrt(dials[f"{rule}_square_left"])
        return dials[rule] / dials[f"{rule}_mean_left"] * mean / (root + self.optim.adam_eps)


class ReferenceTrainer:
    """The same model from the same weights."""

    def __init__(self, recipe: Recipe, group: Solo) -> None:
        self.recipe = recipe
        self.group = group
        self.model = GPT(recipe.arch, recipe.precision).to(group.device)
        load_weights(self.model, init_params(recipe.arch, recipe.seed), recipe.arch)
        self.optimizer = ReferenceOptimizer(recipe.arch, recipe.optim)
        self.state = self.optimizer.start(parameters(self.model))
        self._sizes = recipe.data.phases(recipe.arch.seq_len)
        auto = group.device.type == "cuda"
        compiles = {"auto": auto, "on": True, "off": False}[recipe.compile]
        self._nats_of = torch.compile(self._nats, dynamic=False) if compiles else self._nats

    def step(self, batches: list[MicroBatch], now: Knobs) -> float:
        """One optimizer step; the loss before it, in nats per token, for which the host waits."""
        if now.stage.qat:
            raise ValueError("the reference form has no quantization-aware training")
        tokens = self._sizes[now.stage.batch_phase].train_batch_tokens
        self.model.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.group.device)
        with plain_attention():
            for batch in batches:
                nats = self._nats_of(batch, now.stage.phase).sum(-1).sum() / tokens
                nats.backward()
                total += nats.detach()
        grads = {n: _grad(weight) for n, weight in parameters(self.model).items()}
        self.optimizer.update(self.state, grads, now)
        return float(total)

    def _nats(self, batch: MicroBatch, phase: int) -> Tensor:
        """Of each target, (B, T)."""
        x, y, cu_seqlens = batch
        return self.model.token_nats(x, y, phase, self.recipe.optim.z_loss, cu_seqlens=cu_seqlens)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Blocks attend by one call of the framework's function, as the reference scripts do."""
    own, block.attend = block.attend, attend
    try:
        yield
    finally:
        block.attend = own


def attend(q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None = None) -> Tensor:
    """As backend_torch.attend.attend."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask, shared = None if sees is None else sees[:, None], k.shape[1] != q.shape[1]
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shared
    )
    return y.transpose(1, 2)


def clipped(grads: Arrays, most: float) -> Arrays:
    """All gradients, their norm as one vector at most `most`."""
    norms = torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()])
    scale = torch.clamp(most / (torch.linalg.vector_norm(norms) + CLIP_EPS), max=1.0)
    return {name: grad * scale for name, grad in grads.items()}


def _grad(weight: Tensor) -> Tensor:
    """What no visit used has no gradient, as the skips of a longer plan."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
