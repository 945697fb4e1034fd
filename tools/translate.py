"""What the values of an old command come to: changes of fields, each with its origin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.train.recipe import Recipe, with_changes
from tools.environment import DIRECT, FROM_RECORDS, Change, Values, need


def translated(values: Values, base: Recipe, words: Sequence[str] = ()) -> list[Change]:
    """The fields of `base` that the values set. `words` are the command line's changes: what is
    derived, as mlp_dim from model_dim, is derived from the sizes that will be used."""
    rows = (*DIRECT, *(row for row in FROM_RECORDS if not row.note))
    direct = [
        Change(row.reaches, str(values[row.name]), row.name) for row in rows if row.name in values
    ]
    settled = with_changes(base, [*(change.word for change in direct), *words])
    return direct + [change for rule in RULES for change in rule(values, base, settled)]


def _mlp(values: Values, base: Recipe, settled: Recipe) -> list[Change]:
    """The reference's MLP is a multiple of model_dim, also where only model_dim is set."""
    if not values.keys() & {"MLP_MULT", "MODEL_DIM"}:
        return []
    multiple = values.get("MLP_MULT", base.arch.mlp_dim / base.arch.model_dim)
    hidden = multiple * settled.arch.model_dim
    whole = abs(hidden - round(hidden)) < 1e-6
    need(whole, "MLP_MULT", str(multiple), f"a whole multiple of {settled.arch.model_dim}")
    name = "MLP_MULT" if "MLP_MULT" in values else "MODEL_DIM"
    return [Change("arch.mlp_dim", str(round(hidden)), f"{name} ({multiple:g} x model_dim)")]


def _embed_lr(values: Values, base: Recipe, settled: Recipe) -> list[Change]:
    """Two names for one rate; the reference's own where the embedding is untied or tied anew."""
    tied = settled.arch.tie_embeddings
    name = "TIED_EMBED_LR" if tied else "EMBED_LR"
    if name in values:
        return [Change("optim.embed_lr", str(values[name]), name)]
    if "TIE_EMBEDDINGS" not in values or tied == base.arch.tie_embeddings:
        return []
    rate = "0.05" if tied else "0.6"
    return [Change("optim.embed_lr", rate, f"TIE_EMBEDDINGS (the reference's {name})")]


def _schedule(values: Values, base: Recipe, settled: Recipe) -> list[Change]:
    """Lengths and limits, each with the reference's meaning of 0."""
    found = []
    for name, unit in (("WARMDOWN_FRAC", "frac"), ("WARMDOWN_ITERS", "steps")):
        if name in values:
            found.append(Change("schedule.warmdown", str(values[name]), name))
            found.append(Change("schedule.warmdown_unit", unit, name))
    if (asked := values.get("WARMUP_STEPS", 0)) > 3:
        origin = f"WARMUP_STEPS={asked} (capped: they compile and are rolled back)"
        found.append(Change("schedule.warmup_steps", "3", origin))
    elif "WARMUP_STEPS" in values:
        found.append(Change("schedule.warmup_steps", str(asked), "WARMUP_STEPS"))
    if "MAX_WALLCLOCK_SECONDS" in values:
        budget_s = max(values["MAX_WALLCLOCK_SECONDS"], 0.0)
        found.append(Change("schedule.budget_s", str(budget_s), "MAX_WALLCLOCK_SECONDS"))
    if "TRAIN_LOG_EVERY" in values:
        every = values["TRAIN_LOG_EVERY"] or settled.schedule.steps
        found.append(Change("schedule.log_every_steps", str(every), "TRAIN_LOG_EVERY"))
    return found


def _batches(values: Values, base: Recipe, settled: Recipe) -> list[Change]:
    """Tokens as sequences: of a scoring batch, and of a micro-batch.

    The reference cuts VAL_BATCH_SIZE in eight, ranks times accumulation. So do we, but not below
    65,536 tokens where they were given: small forward passes are slow and change no number.
    """
    found, seq_len = [], settled.arch.seq_len
    if "VAL_BATCH_SIZE" in values:
        tokens = values["VAL_BATCH_SIZE"]
        windows = max(tokens // 8, min(tokens, 65_536)) // seq_len
        found.append(Change("score.batch", str(max(windows, 1)), "VAL_BATCH_SIZE"))
    limits = {}
    if "GRAD_ACCUM_STEPS" in values:
        parts = max(values["GRAD_ACCUM_STEPS"], 1)
        limits["GRAD_ACCUM_STEPS"] = -(-settled.data.train_batch_tokens // (seq_len * parts))
    if "MLX_MAX_MICROBATCH_TOKENS" in values:
        rows = values["MLX_MAX_MICROBATCH_TOKENS"] // seq_len
        limits["MLX_MAX_MICROBATCH_TOKENS"] = max(rows, 1)
    if limits:
        name = min(limits, key=lambda name: limits[name])
        found.append(Change("data.micro_batch", str(limits[name]), name))
    return found


def _rope(values: Values, base: Recipe, settled: Recipe) -> list[Change]:
    if "ROPE_DIMS" not in values:
        return []
    return [Change("arch.rope_dims", str(values["ROPE_DIMS"] or "none"), "ROPE_DIMS")]


RULES: tuple[Callable[[Values, Recipe, Recipe], list[Change]], ...] = (
    *(_mlp, _embed_lr, _schedule, _batches, _rope),
)
