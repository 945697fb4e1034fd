"""A recipe shrunk to the sizes of another: smaller in every direction, every technique still in it.

Sizes are counts: layers, widths, tokens, steps, seconds. Whatever is not a size - which activation,
which skips, every rate of the optimizer - is left as it is, so that what is tried small is what
would be run large. The vocabulary belongs to the tokenizer and stays.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

from core.arch.depth import Pair
from core.arch.params import Param, param_table
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant, stored_format
from core.data.batches import Data
from core.score.adaptation import Lora
from core.score.scoring import Score
from core.train.recipe import Optim, Recipe, Schedule

Number = TypeVar("Number", int, float)


def scaled(recipe: Recipe, to: Recipe) -> Recipe:
    """`recipe` with no size above that of `to`."""
    arch = _arch(recipe.arch, to.arch)
    return replace(
        recipe,
        name=f"{recipe.name}-{to.name}",
        arch=arch,
        optim=_optim(recipe.optim, recipe.schedule, to.schedule),
        schedule=_schedule(recipe.schedule, to.schedule),
        data=_data(recipe.data, to.data, recipe.arch.seq_len, arch.seq_len),
        quant=replace(recipe.quant, keep_below=_keep_below(recipe.arch, arch, recipe.quant)),
        score=_score(recipe.score, to.score, recipe.arch, arch),
    )


def _arch(spec: ModelSpec, to: ModelSpec) -> ModelSpec:
    """Fewer heads of the same size in the same groups; the MLP and RoPE keep their proportions.

    Heads themselves shrink only where one group of them is wider than the whole.
    """
    widest = min(spec.model_dim, to.model_dim)
    group = spec.num_heads // spec.num_kv_heads
    head_dim = spec.head_dim
    if head_dim * group > widest:
        head_dim = max(2, widest // group // 2 * 2)
    kv_heads = min(spec.num_kv_heads, max(1, widest // (head_dim * group)))
    dim = kv_heads * group * head_dim
    return replace(
        spec,
        model_dim=dim,
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        mlp_dim=max(1, round(spec.mlp_dim * dim / spec.model_dim)),
        seq_len=min(spec.seq_len, to.seq_len),
        rope_dims=_rope_dims(spec, head_dim),
        **_of_depth(spec, to.num_layers),
        **_of_width(spec, dim),
    )


def _of_depth(spec: ModelSpec, most: int) -> dict[str, Any]:
    """Block b of n becomes b * layers / n, rounded down; neighbours that fall together are one."""
    attns = _fewer(spec.attn_blocks, spec.num_layers, most)
    mlps = _fewer(spec.mlp_blocks, spec.num_layers, most)
    layers = 1 + max(*attns.values(), *mlps.values())
    phases = []
    for phase in spec.phases if layers < spec.num_layers else ():
        order = [(attns[pair.attn], mlps[pair.mlp]) for pair in phase.pairs]
        again = [b.attn <= a.attn and b.mlp <= a.mlp for a, b in pairwise(phase.pairs)]
        steps = zip(pairwise(order), again, strict=True)  # again: a new pass over the same blocks
        once = [b for (a, b), back in steps if a != b or back]
        small = (a if a == m else Pair(attn=a, mlp=m) for a, m in (order[0], *once))
        phases.append(replace(phase, order=tuple(small)))
    share = layers / spec.num_layers
    return {
        "num_layers": layers,
        "phases": tuple(phases) or spec.phases,
        "xsa_last": math.ceil(spec.xsa_last * share),
        "value_embed_last": math.ceil(spec.value_embed_last * share),
        "routing_start": min(math.ceil(spec.routing_start * share), layers - 1),
    }


def _fewer(blocks: frozenset[int], was: int, most: int) -> dict[int, int]:
    """The new number of each block that has an attention (or an MLP).

    Where there were fewer of them than blocks, there still are: what was shared is shared.
    """
    layers = min(was, most)
    if layers == was:
        return {block: block for block in blocks}
    part = min(math.ceil(len(blocks) * layers / was), max(layers - 1, 1))
    count = layers if len(blocks) == was else part
    return {block: i * count // len(blocks) for i, block in enumerate(sorted(blocks))}


def _of_width(spec: ModelSpec, dim: int) -> dict[str, Any]:
    """Gates that read all dims still do; a factored table and adapters keep their proportion."""
    embed_dim = spec.embed_dim and max(1, round(spec.embed_dim * dim / spec.model_dim))
    dense = spec.attn_gate_dims == spec.model_dim
    return {
        "embed_dim": embed_dim,
        "adapter_rank": spec.adapter_rank and max(1, spec.adapter_rank * dim // spec.model_dim),
        "attn_gate_dims": dim if dense else min(spec.attn_gate_dims, dim),
        "smear_dims": min(spec.smear_dims, dim) if spec.smear == "content" else spec.smear_dims,
    }


def _rope_dims(spec: ModelSpec, head_dim: int) -> int | None:
    """The same fraction of a head, even, and none only where there were none."""
    if not spec.rope_dims or head_dim == spec.head_dim:
        return spec.rope_dims
    return max(2, round(spec.rope_dims * head_dim / spec.head_dim / 2) * 2)


def _optim(optim: Optim, schedule: Schedule, to: Schedule) -> Optim:
    """Momentum warms up over the same part of the run; nothing else changes."""
    share = _steps_share(schedule, to)
    return replace(optim, momentum_warmup_steps=round(optim.momentum_warmup_steps * share))


def _schedule(schedule: Schedule, to: Schedule) -> Schedule:
    """Fewer steps and seconds; a warmdown given in either keeps its part of them."""
    budget_s = _least(schedule.budget_s, to.budget_s)
    share = {
        "frac": 1.0,
        "steps": _steps_share(schedule, to),
        "seconds": budget_s / schedule.budget_s if schedule.budget_s else 1.0,
    }[schedule.warmdown_unit]
    return replace(
        schedule,
        steps=min(schedule.steps, to.steps),
        budget_s=budget_s,
        warmdown=schedule.warmdown * share,
        log_every_steps=min(schedule.log_every_steps, to.log_every_steps),
    )


def _data(data: Data, to: Data, was_seq_len: int, seq_len: int) -> Data:
    """Smaller steps, in every phase alike; a phase's rows keep their part of the longest."""
    rows = min(data.train_batch_tokens, to.train_batch_tokens) // seq_len
    micro_batch = min(_least(data.micro_batch, to.micro_batch), rows)
    small = rows * seq_len
    phases = []
    for phase in data.batch_schedule:
        tokens = phase.train_batch_tokens * small // data.train_batch_tokens
        parts = min(was_seq_len // phase.seq_len, seq_len)
        while seq_len % parts:
            parts += 1
        held = max(tokens // seq_len, 1) * seq_len
        phases.append(replace(phase, train_batch_tokens=held, seq_len=seq_len // parts))
    return replace(
        data, train_batch_tokens=small, micro_batch=micro_batch, batch_schedule=tuple(phases)
    )


def _score(score: Score, to: Score, was: ModelSpec, arch: ModelSpec) -> Score:
    """Never scored is kept; else at least as often as `to`, and on no more targets, by windows of
    the small model's length; what it learns on the way, by as many windows and as wide a part.

    A recipe with a subset of its own keeps it: that is what its scores are compared on.
    """
    every = score.val_every_steps and _least(score.val_every_steps, to.val_every_steps)
    whole = score.subset == "full" and not score.limit_tokens
    part = to if whole else score
    chunk = score.sgd.chunk_tokens * arch.seq_len // was.seq_len
    return replace(
        score,
        batch=min(score.batch, to.batch),
        val_every_steps=every,
        subset=part.subset,
        limit_tokens=part.limit_tokens,
        stride=min(score.stride, arch.seq_len),
        seq_len=0,
        sgd=replace(score.sgd, chunk_tokens=max(1, chunk)),
        lora=_lora(score.lora, arch.model_dim / was.model_dim),
    )


def _lora(lora: Lora, share: float) -> Lora:
    """A smaller rank; alpha keeps its proportion to it."""
    rank = max(1, round(lora.rank * share))
    return replace(lora, rank=rank, alpha=lora.alpha * (rank / lora.rank))


def _keep_below(spec: ModelSpec, small: ModelSpec, quant: Quant) -> int:
    """Low enough that a matrix which was quantized still is."""
    stored = {_in_block(row): stored_format(row, quant) for row in param_table(spec)}
    sizes = [row.size for row in param_table(small) if stored.get(_in_block(row), "fp16") != "fp16"]
    return min([quant.keep_below, *sizes])


def _in_block(row: Param) -> str:
    """The name without the block's number, which is another one in the small model."""
    return re.sub(r"^blocks\.\d+\.", "", row.name)


def _steps_share(schedule: Schedule, to: Schedule) -> float:
    return min(schedule.steps, to.steps) / schedule.steps


def _least(a: Number, b: Number) -> Number:
    """The smaller of two limits, where 0 is no limit."""
    return min(a, b) if a and b else max(a, b)
