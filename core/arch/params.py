"""param_table: one row a parameter - name, shape, start value, optimizer, role - and their sums.

Whoever wants to know how a parameter is trained or stored reads its row; nobody reads its name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import normal, stream_of, uniform
from core.arch.plan import forward_plan, num_skips
from core.arch.spec import ModelSpec

Rule = Literal["matrix", "embed", "head", "scalar"]  # matrix: Muon; the others: Adam, own rates
Role = Literal["embed", "head", "attn", "mlp", "control"]  # how it is stored
Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Start:
    """A start value: uniform in +-scale, normal of deviation scale, or `rows` of constants."""

    kind: Literal["uniform", "normal", "rows"]
    scale: float = 0.0
    rows: tuple[float, ...] = ()  # one value for all, or one for each entry of the first axis


@dataclass(frozen=True)
class Param:
    """One row of the table. Matrices have the layout [out, in]."""

    name: str
    shape: tuple[int, ...]
    start: Start
    rule: Rule
    role: Role

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def constant(*rows: float) -> Start:
    return Start("rows", rows=rows)


def fan_in(dims: int) -> Start:
    """Uniform in +-1/sqrt(fan-in): what torch's Linear starts with."""
    return Start("uniform", 1.0 / math.sqrt(dims))


def param_table(spec: ModelSpec) -> tuple[Param, ...]:
    """Every parameter of the model, once."""
    dim, vocab = spec.model_dim, spec.vocab_size
    embed_start = Start("normal", spec.tied_embed_init_std if spec.tie_embeddings else 1.0)
    rows = [Param("tok_emb.weight", (vocab, dim), embed_start, "embed", "embed")]
    for block in range(spec.num_layers):
        rows += _block_rows(spec, f"blocks.{block}")
    if skips := num_skips(spec):
        rows.append(Param("skip_weights", (skips, dim), constant(1.0), "scalar", "control"))
    if not spec.tie_embeddings:
        rows.append(Param("lm_head.weight", (vocab, dim), constant(0.0), "head", "head"))
    return tuple(rows)


def _block_rows(spec: ModelSpec, at: str) -> list[Param]:
    dim, kv, hidden = spec.model_dim, spec.kv_dim, spec.mlp_dim
    gain = constant(spec.qk_gain_init)
    return [
        Param(f"{at}.resid_mix", (2, dim), constant(1.0, 0.0), "scalar", "control"),
        Param(f"{at}.attn_scale", (dim,), constant(1.0), "scalar", "control"),
        Param(f"{at}.mlp_scale", (dim,), constant(1.0), "scalar", "control"),
        Param(f"{at}.attn.q_gain", (spec.num_heads,), gain, "scalar", "control"),
        Param(f"{at}.attn.c_q.weight", (dim, dim), fan_in(dim), "matrix", "attn"),
        Param(f"{at}.attn.c_k.weight", (kv, dim), fan_in(dim), "matrix", "attn"),
        Param(f"{at}.attn.c_v.weight", (kv, dim), fan_in(dim), "matrix", "attn"),
        Param(f"{at}.attn.proj.weight", (dim, dim), constant(0.0), "matrix", "attn"),
        Param(f"{at}.mlp.fc.weight", (hidden, dim), fan_in(dim), "matrix", "mlp"),
        Param(f"{at}.mlp.proj.weight", (dim, hidden), constant(0.0), "matrix", "mlp"),
    ]


def init_params(spec: ModelSpec, seed: int) -> Weights:
    """First weights, float32, equal in every bit on every machine."""
    return {row.name: start_value(row, seed) for row in param_table(spec)}


def start_value(row: Param, seed: int) -> Array:
    """The first value of one parameter; drawn in float64, rounded once."""
    if row.start.kind == "rows":
        column = np.array(row.start.rows, np.float32).reshape(-1, *[1] * (len(row.shape) - 1))
        return np.ascontiguousarray(np.broadcast_to(column, row.shape))
    stream = stream_of(row.name)
    if row.start.kind == "uniform":
        drawn = 2.0 * uniform(seed, stream, row.shape) - 1.0
    else:
        drawn = normal(seed, stream, row.shape)
    return (drawn * row.start.scale).astype(np.float32)


def num_params(spec: ModelSpec) -> int:
    return sum(row.size for row in param_table(spec))


def flops_per_token(spec: ModelSpec) -> int:
    """Forward and backward, matrix products and attention only; the look-up is free.

    6 per weight of every visited block and of the head, and 12 * C * mean causal context for the
    two products of attention: the usual count (Kaplan et al. 2020), causal windows halved.
    """
    visits = len(forward_plan(spec))
    block = sum(row.size for row in _block_rows(spec, "") if row.rule == "matrix")
    context = (spec.seq_len + 1) / 2
    products = 6 * (visits * block + spec.vocab_size * spec.model_dim)
    return round(products + 12 * spec.model_dim * context * visits)


def check_weights(weights: dict[str, Array], spec: ModelSpec, where: str) -> None:
    """Raise ValueError unless `weights` are exactly the table's names and shapes."""
    table = {row.name: row.shape for row in param_table(spec)}
    missing, extra = sorted(table.keys() - weights.keys()), sorted(weights.keys() - table.keys())
    if missing or extra:
        raise ValueError(
            f"{where}: weights do not fit the ModelSpec; "
            f"missing {missing[:3] or 'none'}, unknown {extra[:3] or 'none'}"
        )
    for name, shape in table.items():
        if weights[name].shape != shape:
            raise ValueError(f"{where}: {name} has shape {weights[name].shape}, expected {shape}")
