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
from core.arch.plan import LANES, forward_plan, longest, num_skips
from core.arch.spec import ModelSpec

Rule = Literal["matrix", "embed", "head", "scalar"]  # matrix: Muon; the others: Adam, own rates
Role = Literal["embed", "head", "attn", "mlp", "control"]  # how it is stored
Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Start:
    """A start value: uniform in +-scale, normal of deviation scale, or `rows` of constants.

    orthogonal: the shorter side's vectors are orthonormal, times scale (Saxe et al. 2014).
    """

    kind: Literal["uniform", "normal", "orthogonal", "rows"]
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


def matrix_start(spec: ModelSpec, dims: int) -> Start:
    """Of a matrix with so many columns: uniform in +-1/sqrt(dims), as torch's Linear, or normal
    of that deviation, or orthogonal."""
    scale = 1.0 if spec.matrix_init == "orthogonal" else 1.0 / math.sqrt(dims)
    return Start(spec.matrix_init, scale)


def param_table(spec: ModelSpec) -> tuple[Param, ...]:
    """Every parameter of the model, once."""
    rows = _embed_rows(spec)
    for block in range(spec.num_layers):
        rows += _block_rows(spec, f"blocks.{block}")
        rows += _value_rows(spec, block)
    rows += _between_rows(spec)
    if not spec.tie_embeddings:
        shape = (spec.vocab_size, spec.table_dim)
        rows.append(Param("lm_head.weight", shape, constant(0.0), "head", "head"))
    if spec.head_bias:
        rows.append(control("head_bias", (spec.vocab_size,), 0.0))
    return tuple(rows)


def _embed_rows(spec: ModelSpec) -> list[Param]:
    """What makes the first x of the tokens, and the factor on the way out."""
    dim, table, vocab = spec.model_dim, spec.table_dim, spec.vocab_size
    start = Start("normal", spec.tied_embed_init_std if spec.tie_embeddings else 1.0)
    rows = [Param("tok_emb.weight", (vocab, table), start, "embed", "embed")]
    if spec.embed_dim is not None:
        into, out = matrix_start(spec, table), matrix_start(spec, dim)
        rows.append(Param("embed_in.weight", (dim, table), into, "matrix", "embed"))
        rows.append(Param("embed_out.weight", (table, dim), out, "matrix", "embed"))
    if spec.smear == "static":
        rows.append(control("smear_share", (dim,), 0.0))
    if spec.smear == "content":
        rows.append(control("smear_gate.weight", (1, spec.smear_dims), 0.0))
        rows.append(control("smear_scale", (1,), 0.0))
    if spec.bigram_buckets:
        pairs, proj = (spec.bigram_buckets, spec.bigram_dim), (dim, spec.bigram_dim)
        rows.append(Param("bigram_emb.weight", pairs, Start("normal", 0.02), "embed", "embed"))
        rows.append(Param("bigram_proj.weight", proj, constant(0.0), "matrix", "embed"))
        rows.append(control("bigram_scale", (1,), 0.05))
    if spec.value_embed_dim:
        values, proj = (vocab, spec.value_embed_dim), (spec.kv_dim, spec.value_embed_dim)
        rows.append(Param("value_emb.weight", values, Start("normal", 0.02), "embed", "embed"))
        rows.append(Param("value_proj.weight", proj, constant(0.0), "matrix", "embed"))
        rows.append(control("value_scale", (1,), 0.1))
    return rows


def _between_rows(spec: ModelSpec) -> list[Param]:
    """What stands between blocks: vectors of visits, skips and lanes."""
    dim, layers, rows = spec.model_dim, spec.num_layers, list[Param]()
    if spec.step_embed:
        rows.append(control("step_emb", (longest(spec), dim), 0.0))
    if skips := num_skips(spec):
        rows.append(control("skip_weights", (skips, dim), 1.0))
    if skips and spec.skip_gates:
        rows.append(control("skip_gates", (skips, dim), 0.0))
    if spec.routing in LANES:
        resid = 1.1 if spec.routing == "lanes" else math.sqrt(1.1)  # in turn: twice a block
        rows.append(control("lane_resid", (layers, 2), resid))
        rows.append(control("lane_post", (layers, 2, 2), 1.0))
    return rows


def control(name: str, shape: tuple[int, ...], *start: float) -> Param:
    """A row of few numbers: Adam, kept in floats."""
    return Param(name, shape, constant(*start), "scalar", "control")


def _block_rows(spec: ModelSpec, at: str) -> list[Param]:
    dim, kv, hidden = spec.model_dim, spec.kv_dim, spec.mlp_dim
    into, out = matrix_start(spec, dim), constant(0.0)
    rows = [
        control(f"{at}.resid_mix", (2, dim), 1.0, 0.0),
        control(f"{at}.attn_scale", (dim,), 1.0),
        control(f"{at}.mlp_scale", (dim,), 1.0),
        control(f"{at}.attn.q_gain", (spec.num_heads,), spec.qk_gain_init),
        Param(f"{at}.attn.c_q.weight", (dim, dim), into, "matrix", "attn"),
        Param(f"{at}.attn.c_k.weight", (kv, dim), into, "matrix", "attn"),
        Param(f"{at}.attn.c_v.weight", (kv, dim), into, "matrix", "attn"),
        Param(f"{at}.attn.proj.weight", (dim, dim), out, "matrix", "attn"),
        Param(f"{at}.mlp.fc.weight", (hidden, dim), into, "matrix", "mlp"),
        Param(f"{at}.mlp.proj.weight", (dim, hidden), out, "matrix", "mlp"),
    ]
    if spec.activation == "swiglu":
        rows.append(Param(f"{at}.mlp.gate.weight", (hidden, dim), into, "matrix", "mlp"))
    if spec.attn_gate_dims:
        gates, std = (spec.num_heads, spec.attn_gate_dims), spec.attn_gate_init_std
        start = Start("normal", std) if std else constant(0.0)
        rows.append(Param(f"{at}.attn.gate.weight", gates, start, "scalar", "control"))
    return rows


def _value_rows(spec: ModelSpec, block: int) -> list[Param]:
    """What a block takes of the value table and of the first visit's values."""
    at, rows = f"blocks.{block}.attn", list[Param]()
    if spec.takes_rows(block):
        rows.append(control(f"{at}.value_mix", (1,), 1.0))
    if spec.shares_values(block):
        rows.append(control(f"{at}.value_share", (1,), 0.0))
    return rows


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
    if row.start.kind == "orthogonal":
        drawn = orthonormal(drawn)
    return (drawn * row.start.scale).astype(np.float32)


def orthonormal(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Q of a QR decomposition on the longer side, with R's diagonal positive: uniform over
    all such matrices where `drawn` is normal. LAPACK's last bits are the library's."""
    tall = drawn if drawn.shape[0] >= drawn.shape[1] else drawn.T
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if tall is drawn else q.T


def num_params(spec: ModelSpec) -> int:
    return sum(row.size for row in param_table(spec))


def flops_per_token(spec: ModelSpec) -> int:
    """Forward and backward, matrix products and attention only; the look-up is free.

    6 per weight of every visited block and of the head, and 12 * C * mean causal context for the
    two products of attention: the usual count (Kaplan et al. 2020), causal windows halved.
    """
    visits = len(forward_plan(spec))
    block = sum(row.size for row in _block_rows(spec, "") if row.rule == "matrix")
    factors = sum(row.size for row in _embed_rows(spec) if row.rule == "matrix")
    context = (spec.seq_len + 1) / 2
    products = 6 * (visits * block + factors + spec.vocab_size * spec.table_dim)
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
