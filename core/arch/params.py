"""param_table: one row a parameter - name, shape, start value, optimizer, role - and their sums.

Whoever wants to know how a parameter is trained or stored reads its row; nobody reads its name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.arch.plan import LANES, forward_plan, longest, num_skips
from core.arch.spec import ModelSpec
from core.arch.start import Array, Start, adapter_start, constant, matrix_start, start_value

Rule = Literal["matrix", "embed", "head", "scalar"]  # matrix: Muon; the others: Adam, own rates
Role = Literal["embed", "head", "attn", "mlp", "control"]  # how it is stored
Matrix = tuple[str, tuple[int, int], Start]  # its name in a block, [out, in], how it starts
Weights = dict[str, Array]


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


def param_table(spec: ModelSpec) -> tuple[Param, ...]:
    """Every parameter of the model, once."""
    rows = _embed_rows(spec)
    for block in range(spec.num_layers):
        rows += _attn_rows(spec, block) if block in spec.attn_blocks else []
        rows += _mlp_rows(spec, block) if block in spec.mlp_blocks else []
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
    if spec.visit_scale:
        rows.append(control("visit_scale", (longest(spec), 2), 1.0))
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


def _attn_rows(spec: ModelSpec, block: int) -> list[Param]:
    """What a block's attention has, and what x goes through before it."""
    at, dim, heads = f"blocks.{block}", spec.model_dim, spec.num_heads
    rows = [
        control(f"{at}.resid_mix", (2, dim), 1.0, 0.0),
        control(f"{at}.attn_scale", (dim,), 1.0),
        control(f"{at}.attn.q_gain", (heads,), spec.qk_gain_init),
    ]
    for name, shape, start in _attn_matrices(spec):
        rows += _matrix_rows(spec, f"{at}.attn.{name}", shape, start, "attn")
    if spec.attn_gate_dims:
        gates, std = (heads, spec.attn_gate_dims), spec.attn_gate_init_std
        start = Start("normal", std) if std else constant(0.0)
        rows.append(Param(f"{at}.attn.gate.weight", gates, start, "scalar", "control"))
    if spec.takes_rows(block):
        rows.append(control(f"{at}.attn.value_mix", (1,), 1.0))
    if spec.shares_values(block):
        rows.append(control(f"{at}.attn.value_share", (1,), 0.0))
    return rows


def _mlp_rows(spec: ModelSpec, block: int) -> list[Param]:
    """What a block's MLP has."""
    at = f"blocks.{block}"
    rows = [control(f"{at}.mlp_scale", (spec.model_dim,), 1.0)]
    for name, shape, start in _mlp_matrices(spec):
        rows += _matrix_rows(spec, f"{at}.mlp.{name}", shape, start, "mlp")
    return rows


def _attn_matrices(spec: ModelSpec) -> list[Matrix]:
    dim, kv, into = spec.model_dim, spec.kv_dim, matrix_start(spec, spec.model_dim)
    inward = [("c_q", (dim, dim), into), ("c_k", (kv, dim), into), ("c_v", (kv, dim), into)]
    return [*inward, ("proj", (dim, dim), constant(0.0))]


def _mlp_matrices(spec: ModelSpec) -> list[Matrix]:
    dim, hidden, into = spec.model_dim, spec.mlp_dim, matrix_start(spec, spec.model_dim)
    found = [("fc", (hidden, dim), into), ("proj", (dim, hidden), constant(0.0))]
    return [*found, ("gate", (hidden, dim), into)] if spec.activation == "swiglu" else found


def _matrix_rows(
    spec: ModelSpec, name: str, shape: tuple[int, int], start: Start, role: Role
) -> list[Param]:
    """A matrix, or the adapter that is trained beside a random one, if there is any."""
    if spec.linear != "random":
        return [Param(f"{name}.weight", shape, start, "matrix", role)]
    if not spec.adapter_rank:
        return []
    (out_dims, in_dims), rank = shape, spec.adapter_rank
    down, up = adapter_start(spec, in_dims), constant(0.0)
    return [
        Param(f"{name}.down.weight", (rank, in_dims), down, "matrix", role),
        Param(f"{name}.up.weight", (out_dims, rank), up, "matrix", role),
    ]


def init_params(spec: ModelSpec, seed: int) -> Weights:
    """First weights, float32, equal in every bit on every machine."""
    table = param_table(spec)
    return {row.name: start_value(row.name, row.shape, row.start, seed) for row in table}


def num_params(spec: ModelSpec) -> int:
    return sum(row.size for row in param_table(spec))


def products(spec: ModelSpec) -> list[str]:
    """The matrices that are multiplied with as they are: where bf16 is, as bf16 alone."""
    if spec.linear in ("ternary", "binary"):
        return []
    return [row.name for row in param_table(spec) if row.rule == "matrix"]


def num_frozen(spec: ModelSpec) -> int:
    """The weights of the random matrices: drawn from a seed, neither trained nor packed."""
    attn, mlp = _frozen_sizes(spec)
    return len(spec.attn_blocks) * attn + len(spec.mlp_blocks) * mlp


def _frozen_sizes(spec: ModelSpec) -> tuple[int, int]:
    """The random weights of one attention and of one MLP."""
    if spec.linear != "random":
        return 0, 0
    both = (_attn_matrices(spec), _mlp_matrices(spec))
    attn, mlp = (sum(math.prod(shape) for _, shape, _ in matrices) for matrices in both)
    return attn, mlp


def flops_per_token(spec: ModelSpec) -> int:
    """Forward and backward, matrix products and attention only; the look-up is free.

    6 per weight of every visited attention and MLP and of the head, and 12 * C * mean causal
    context for the two products of attention: the usual count (Kaplan et al. 2020), causal windows
    halved. 4 per random weight: it has no gradient.
    """
    visits = len(forward_plan(spec))
    visited = _attn_rows(spec, 0) + _mlp_rows(spec, 0)
    block = sum(row.size for row in visited if row.rule == "matrix")
    factors = sum(row.size for row in _embed_rows(spec) if row.rule == "matrix")
    context = (spec.seq_len + 1) / 2
    products = 6 * (visits * block + factors + spec.vocab_size * spec.table_dim)
    products += 4 * visits * sum(_frozen_sizes(spec))
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
