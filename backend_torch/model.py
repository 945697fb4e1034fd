"""The GPT: attention, MLP, block, and the model that follows core's plan."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from backend_torch.attend import attend
from backend_torch.linear import Linear, project
from backend_torch.ops import ACTIVATIONS, cross_entropy, rms_norm, rotate, softcap
from core.arch.plan import forward_plan, num_skips
from core.arch.rope import rotary_tables
from core.arch.spec import ModelSpec
from core.train.recipe import Precision


class Attention(nn.Module):
    """Causal grouped-query attention with normalised queries and keys and a gain per head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.c_q = Linear(spec.model_dim, spec.model_dim)
        self.c_k = Linear(spec.model_dim, spec.kv_dim)
        self.c_v = Linear(spec.model_dim, spec.kv_dim)
        self.proj = Linear(spec.model_dim, spec.model_dim)
        self.q_gain = nn.Parameter(torch.zeros(spec.num_heads))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        spec, (rows, time, _) = self.spec, x.shape
        q = self.c_q(x).reshape(rows, time, spec.num_heads, spec.head_dim)
        k = self.c_k(x).reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        v = self.c_v(x).reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        q = rotate(rms_norm(q, spec.norm_eps), cos, sin)
        k = rotate(rms_norm(k, spec.norm_eps), cos, sin)
        q = q * self.q_gain[:, None].to(q.dtype)
        return self.proj(attend(q, k, v).reshape(rows, time, spec.model_dim))


class MLP(nn.Module):
    """Up, activation, down."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.fc = Linear(spec.model_dim, spec.mlp_dim)
        self.proj = Linear(spec.mlp_dim, spec.model_dim)

    def forward(self, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.spec.activation]
        return self.proj(activation(self.fc(x), self.spec.leaky_slope))


class Block(nn.Module):
    """x0 mixed in, then attention and MLP, each on a normalised input and scaled per dim."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.resid_mix = nn.Parameter(torch.zeros(2, spec.model_dim))
        self.attn_scale = nn.Parameter(torch.zeros(spec.model_dim))
        self.mlp_scale = nn.Parameter(torch.zeros(spec.model_dim))
        self.attn = Attention(spec)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, x0: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        eps, mix = self.spec.norm_eps, self.resid_mix.to(x.dtype)
        x = mix[0] * x + mix[1] * x0
        x = x + self.attn_scale.to(x.dtype) * self.attn(rms_norm(x, eps), cos, sin)
        return x + self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x, eps))


class GPT(nn.Module):
    """Embed, follow the plan, head. Weights start as zeros: load the first ones from core."""

    _cos: Tensor
    _sin: Tensor

    def __init__(self, spec: ModelSpec, precision: Precision) -> None:
        super().__init__()
        self.spec = spec
        self.precision = precision
        self._plan = forward_plan(spec)
        self.tok_emb = nn.Embedding(spec.vocab_size, spec.model_dim)
        self.blocks = nn.ModuleList([Block(spec) for _ in range(spec.num_layers)])
        if skips := num_skips(spec):
            self.skip_weights = nn.Parameter(torch.zeros(skips, spec.model_dim))
        if not spec.tie_embeddings:
            self.lm_head = Linear(spec.model_dim, spec.vocab_size)
        cos, sin = rotary_tables(spec)
        self.register_buffer("_cos", torch.from_numpy(cos), persistent=False)
        self.register_buffer("_sin", torch.from_numpy(sin), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Capped logits, fp32 (B, T, V). tokens: (B, T) integers, T at most seq_len."""
        time = tokens.shape[1]
        cos, sin = self._cos[:time], self._sin[:time]
        x = x0 = rms_norm(self._embed(tokens), self.spec.norm_eps)
        skips: list[Tensor] = []
        for visit in self._plan:
            if visit.pop_skip is not None:
                x = x + self.skip_weights[visit.pop_skip].to(x.dtype) * skips.pop()
            x = self.blocks[visit.block](x, x0, cos, sin)
            if visit.push_skip:
                skips.append(x)
        return self._head(rms_norm(x, self.spec.norm_eps))

    def token_nats(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Nats of each target, fp32 (B, T)."""
        autocast = self.precision == "autocast"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=autocast):
            logits = self(tokens)
        return cross_entropy(logits, targets)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.tok_emb(tokens)
        return x.bfloat16() if self.precision == "cast" else x

    def _head(self, x: Tensor) -> Tensor:
        weight = self.tok_emb.weight if self.spec.tie_embeddings else self.lm_head.weight
        return softcap(project(x, weight), self.spec.logit_softcap)
