"""The GPT: embeddings, the blocks that core's plan visits, the head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from backend_torch.attend import sees_of
from backend_torch.block import LANES, ROUTES, Block, Given, Layer, ending
from backend_torch.linear import Linear, Side, Sides, beside, project
from backend_torch.ops import before, cross_entropy, pair_buckets, rms_norm, softcap
from core.arch.plan import Visit, forward_plan, longest, num_skips
from core.arch.rope import longer_tables, rotary_tables
from core.arch.spec import ModelSpec
from core.train.recipe import Precision


class GPT(nn.Module):
    """Embed, follow the plan, head. Weights start as zeros: load the first ones from core."""

    blocks: Any  # of Block
    _cos: Tensor
    _sin: Tensor

    def __init__(self, spec: ModelSpec, precision: Precision) -> None:
        super().__init__()
        self.spec = spec
        self.precision = precision
        self._plans = [forward_plan(spec, phase) for phase in range(len(spec.orders))]
        self._windows = sorted({spec.window(block) for block in spec.attn_blocks})
        self.tok_emb = nn.Embedding(spec.vocab_size, spec.table_dim)
        if spec.embed_dim is not None:
            self.embed_in = Linear(spec.table_dim, spec.model_dim)
            self.embed_out = Linear(spec.model_dim, spec.table_dim)
        if spec.smear == "static":
            self.smear_share = nn.Parameter(torch.zeros(spec.model_dim))
        if spec.smear == "content":
            self.smear_gate = Linear(spec.smear_dims, 1)
            self.smear_scale = nn.Parameter(torch.zeros(1))
        if spec.bigram_buckets:
            self.bigram_emb = nn.Embedding(spec.bigram_buckets, spec.bigram_dim)
            self.bigram_proj = Linear(spec.bigram_dim, spec.model_dim)
            self.bigram_scale = nn.Parameter(torch.zeros(1))
        if spec.value_embed_dim:
            self.value_emb = nn.Embedding(spec.vocab_size, spec.value_embed_dim)
            self.value_proj = Linear(spec.value_embed_dim, spec.kv_dim)
            self.value_scale = nn.Parameter(torch.zeros(1))
        self.blocks = nn.ModuleList([Block(spec, block) for block in range(spec.num_layers)])
        if spec.step_embed:
            self.step_emb = nn.Parameter(torch.zeros(longest(spec), spec.model_dim))
        if spec.visit_scale:
            self.visit_scale = nn.Parameter(torch.zeros(longest(spec), 2))
        if skips := num_skips(spec):
            self.skip_weights = nn.Parameter(torch.zeros(skips, spec.model_dim))
        if skips and spec.skip_gates:
            self.skip_gates = nn.Parameter(torch.zeros(skips, spec.model_dim))
        if spec.routing in LANES:
            self.lane_resid = nn.Parameter(torch.zeros(spec.num_layers, 2))
            self.lane_post = nn.Parameter(torch.zeros(spec.num_layers, 2, 2))
        if not spec.tie_embeddings:
            self.lm_head = Linear(spec.table_dim, spec.vocab_size)
        if spec.head_bias:
            self.head_bias = nn.Parameter(torch.zeros(spec.vocab_size))
        cos, sin = rotary_tables(spec)
        self.register_buffer("_cos", torch.from_numpy(cos), persistent=False)
        self.register_buffer("_sin", torch.from_numpy(sin), persistent=False)

    def forward(
        self, x: Tensor, y: Tensor, phase: int, z_loss: float, cu_seqlens: Tensor | None
    ) -> Tensor:
        """What is trained on: nats of all tokens y that follow each of x, both (B, T)."""
        return self.token_nats(x, y, phase, z_loss, cu_seqlens=cu_seqlens).sum(-1).sum()

    def logits(
        self,
        tokens: Tensor,
        phase: int = -1,
        last: int = 0,
        sides: Sides | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Capped logits, fp32 (B, T, V); of the `last` positions alone, where it is not 0.

        tokens: (B, T) integers. phase: which of the spec's orders the blocks run in.
        sides: adapters of each visit and of the head. cu_seqlens: (N + 1,) of the documents in
        tokens, where attention is to take one after another instead of by a mask.
        """
        autocast = self.precision == "autocast"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=autocast):
            x = self.hidden(tokens, phase, last, sides, cu_seqlens)
            logits = self.head(x, None if sides is None else sides[-1])
            return softcap(logits, self.spec.softcap, self.spec.logit_softcap)

    def hidden(
        self,
        tokens: Tensor,
        phase: int,
        last: int,
        sides: Sides | None,
        cu_seqlens: Tensor | None,
    ) -> Tensor:
        """What the head is given: (B, T, C), normalised, of the `last` positions or of all."""
        x = rms_norm(self._embed(tokens), self.spec.norm_eps)
        given = self._given(tokens, x, cu_seqlens)
        lane = x
        skips: list[Tensor] = []
        for visit in self._plans[phase]:
            if last and visit.position == len(self._plans[phase]) - 1:
                given = ending(given, last)
            if visit.pop_skip is not None:
                x = self._joined(x, skips.pop(), visit.pop_skip)
            if self.spec.step_embed:
                x = x + self.step_emb[visit.position].to(x.dtype)
            layer = self._layer(visit, x, None if sides is None else sides[visit.position])
            if visit.opens_lanes:
                lane = x
            if visit.in_lanes:
                resid = self.lane_resid[visit.attn].to(x.dtype)
                post = self.lane_post[visit.attn].to(x.dtype)
                x, lane = LANES[visit.route](layer, x, lane, resid, post, given)
            else:
                x = ROUTES[visit.route](layer, x, given)
            if visit.closes_lanes:
                x = 0.5 * (x + lane)
            if visit.push_skip:
                skips.append(x)
        return rms_norm(x, self.spec.norm_eps)

    def token_nats(
        self,
        tokens: Tensor,
        targets: Tensor,
        phase: int = -1,
        z_loss: float = 0.0,
        last: int = 0,
        sides: Sides | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Nats of each target, fp32 (B, L); in training with the z-loss, where there is one.

        targets: (B, L), of all positions or, where `last` is not 0, of as many at the end.
        """
        logits = self.logits(tokens, phase, last, sides, cu_seqlens)
        return cross_entropy(logits, targets, z_loss)

    def _given(self, tokens: Tensor, x0: Tensor, cu_seqlens: Tensor | None) -> Given:
        sees = dict.fromkeys(self._windows)
        if cu_seqlens is None and (self.spec.doc_mask or self.spec.windows):
            sees = {w: sees_of(tokens, w, self.spec.doc_mask) for w in self._windows}
        rows = self._value_rows(tokens, x0) if self.spec.value_embed_dim else None
        cos, sin = self._turns(tokens.shape[1])
        return Given(x0, cos, sin, sees, rows, [], cu_seqlens)

    def _turns(self, time: int) -> tuple[Tensor, Tensor]:
        """cos and sin of so many positions."""
        if time <= self.spec.seq_len:
            return self._cos[:time], self._sin[:time]
        cos, sin = longer_tables(self.spec, time)
        return torch.from_numpy(cos).to(self._cos), torch.from_numpy(sin).to(self._sin)

    def _value_rows(self, tokens: Tensor, x0: Tensor) -> Tensor:
        """What the value table adds, (B, T, H_kv D), in x0's dtype."""
        rows = self.value_proj(self.value_emb(tokens).to(x0.dtype))
        return self.value_scale.to(x0.dtype) * rows

    def _embed(self, tokens: Tensor) -> Tensor:
        """Rows of the table, with what the tokens before them add."""
        x = self.tok_emb(tokens)
        x = x.bfloat16() if self.precision == "cast" else x
        if self.spec.embed_dim is not None:
            x = self.embed_in(x)
        if self.spec.bigram_buckets:
            pairs = self.bigram_emb(pair_buckets(tokens, self.spec.bigram_buckets)).to(x.dtype)
            x = x + self.bigram_scale.to(x.dtype) * self.bigram_proj(pairs)
        if self.spec.smear == "static":
            share = torch.sigmoid(self.smear_share).to(x.dtype)
            x = x + share * (before(x, tokens) - x)
        if self.spec.smear == "content":
            share = torch.sigmoid(self.smear_gate(x[..., : self.spec.smear_dims]))
            x = x + self.smear_scale.to(x.dtype) * share * before(x, tokens)
        return x

    def _layer(self, visit: Visit, x: Tensor, side: Side | None) -> Layer:
        """The blocks of a visit with its adapters; its shares in x's dtype, if it has any."""
        attn, mlp, shares = self.blocks[visit.attn], self.blocks[visit.mlp], None
        if self.spec.visit_scale:
            shares = self.visit_scale[visit.position].to(x.dtype)
        return Layer(attn, mlp, shares, side)

    def _joined(self, x: Tensor, skip: Tensor, row: int) -> Tensor:
        """x and a skip: their sum, or by the gates some of one and the rest of the other."""
        skip = self.skip_weights[row].to(x.dtype) * skip
        if not self.spec.skip_gates:
            return x + skip
        share = torch.sigmoid(self.skip_gates[row]).to(x.dtype)
        return share * x + (1.0 - share) * skip

    def head(self, x: Tensor, side: Side | None) -> Tensor:
        """Logits before their cap."""
        if self.spec.embed_dim is not None:
            x = self.embed_out(x)
        logits = self.matched(x)
        if side is not None:
            logits = beside(logits, x, side["head"])
        if self.spec.head_bias:
            logits = logits + self.head_bias
        return logits

    def matched(self, x: Tensor) -> Tensor:
        """x (B, T, in) with every token's row: (B, T, V)."""
        return project(x, self.tok_emb.weight if self.spec.tie_embeddings else self.lm_head.weight)
