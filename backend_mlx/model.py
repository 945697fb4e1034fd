"""The GPT: attention, MLP, block, and the model that follows core's plan."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from backend_mlx.attend import attend
from backend_mlx.linear import Linear, project
from backend_mlx.ops import ACTIVATIONS, cross_entropy, rms_norm, rotate, softcap
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
        self.q_gain = mx.zeros(spec.num_heads)

    def __call__(self, x: array, cos: array, sin: array) -> array:
        spec, (rows, time, _) = self.spec, x.shape
        q = self.c_q(x).reshape(rows, time, spec.num_heads, spec.head_dim)
        k = self.c_k(x).reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        v = self.c_v(x).reshape(rows, time, spec.num_kv_heads, spec.head_dim)
        q = rotate(rms_norm(q, spec.norm_eps), cos, sin)
        k = rotate(rms_norm(k, spec.norm_eps), cos, sin)
        q = q * self.q_gain[:, None].astype(q.dtype)
        return self.proj(attend(q, k, v).reshape(rows, time, spec.model_dim))


class MLP(nn.Module):
    """Up, activation, down."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.fc = Linear(spec.model_dim, spec.mlp_dim)
        self.proj = Linear(spec.mlp_dim, spec.model_dim)

    def __call__(self, x: array) -> array:
        activation = ACTIVATIONS[self.spec.activation]
        return self.proj(activation(self.fc(x), self.spec.leaky_slope))


class Block(nn.Module):
    """x0 mixed in, then attention and MLP, each on a normalised input and scaled per dim."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.resid_mix = mx.zeros((2, spec.model_dim))
        self.attn_scale = mx.zeros(spec.model_dim)
        self.mlp_scale = mx.zeros(spec.model_dim)
        self.attn = Attention(spec)
        self.mlp = MLP(spec)

    def __call__(self, x: array, x0: array, cos: array, sin: array) -> array:
        eps, mix = self.spec.norm_eps, self.resid_mix.astype(x.dtype)
        x = mix[0] * x + mix[1] * x0
        x = x + self.attn_scale.astype(x.dtype) * self.attn(rms_norm(x, eps), cos, sin)
        return x + self.mlp_scale.astype(x.dtype) * self.mlp(rms_norm(x, eps))


class GPT(nn.Module):
    """Embed, follow the plan, head. Weights start as zeros: load the first ones from core."""

    _cos: array
    _sin: array

    def __init__(self, spec: ModelSpec, precision: Precision) -> None:
        super().__init__()
        self.spec = spec
        self.precision = precision
        self._plan = forward_plan(spec)
        self.tok_emb = nn.Embedding(spec.vocab_size, spec.model_dim)
        self.blocks = [Block(spec) for _ in range(spec.num_layers)]
        if skips := num_skips(spec):
            self.skip_weights = mx.zeros((skips, spec.model_dim))
        if not spec.tie_embeddings:
            self.lm_head = Linear(spec.model_dim, spec.vocab_size)
        cos, sin = rotary_tables(spec)
        self._cos = mx.array(cos)
        self._sin = mx.array(sin)

    def __call__(self, tokens: array) -> array:
        """Capped logits, fp32 (B, T, V). tokens: (B, T) integers, T at most seq_len."""
        time = tokens.shape[1]
        cos, sin = self._cos[:time], self._sin[:time]
        x = x0 = rms_norm(self._embed(tokens), self.spec.norm_eps)
        skips: list[array] = []
        for visit in self._plan:
            if visit.pop_skip is not None:
                x = x + self.skip_weights[visit.pop_skip].astype(x.dtype) * skips.pop()
            x = self.blocks[visit.block](x, x0, cos, sin)
            if visit.push_skip:
                skips.append(x)
        return self._head(rms_norm(x, self.spec.norm_eps))

    def token_nats(self, tokens: array, targets: array) -> array:
        """Nats of each target, fp32 (B, T)."""
        logits = self(tokens)
        return cross_entropy(logits, targets)

    def _embed(self, tokens: array) -> array:
        x = self.tok_emb(tokens)
        return x if self.precision == "fp32" else x.astype(mx.bfloat16)

    def _head(self, x: array) -> array:
        weight = self.tok_emb.weight if self.spec.tie_embeddings else self.lm_head.weight
        return softcap(project(x, weight), self.spec.logit_softcap)
