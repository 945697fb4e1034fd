"""The one table of tiny architectures that both engines must agree on: a row a technique."""

from __future__ import annotations

from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.data.batches import Data
from core.train.recipe import Optim, Recipe, Schedule

TINY = {
    "vocab_size": 96,
    "num_layers": 3,
    "model_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "mlp_dim": 64,
    "seq_len": 24,
}

CASES: dict[str, dict[str, object]] = {
    "baseline": {},
    "even_layers": {"num_layers": 4},
    "one_layer": {"num_layers": 1},
    "no_skips": {"skips": "none"},
    "untied": {"tie_embeddings": False},
    "partial_rope": {"rope_dims": 4},
    "no_rope": {"rope_dims": 0},
    "other_rope_base": {"rope_base": 500.0},
    "leaky_relu2": {"activation": "leaky_relu2", "leaky_slope": 0.5},
    "all_heads_own_kv": {"num_kv_heads": 4},
    "one_kv_head": {"num_kv_heads": 1},
    "wide_mlp": {"mlp_dim": 128},
    "low_softcap": {"logit_softcap": 5.0},
    "no_softcap": {"logit_softcap": 0.0},
    "large_norm_eps": {"norm_eps": 1e-3},
    "large_gain": {"qk_gain_init": 5.0},
}


def spec_of(case: str) -> ModelSpec:
    return ModelSpec(**{**TINY, **CASES[case]})


def recipe_of(case: str, **changes: object) -> Recipe:
    """fp32, a moderate rate, and a schedule that moves everything: warm-up, warmdown, average."""
    optim = Optim(
        matrix_lr=0.01,
        embed_lr=0.0125,
        head_lr=0.008,
        scalar_lr=0.01,
        momentum_warmup_steps=5,
        ns_precision="fp32",
        ema_decay=0.9,
    )
    fields = {
        "name": case,
        "precision": "fp32",
        "arch": spec_of(case),
        "optim": optim,
        "schedule": Schedule(steps=20, budget_s=0.0, warmdown=0.5, warmdown_unit="frac"),
        "data": Data(train_batch_tokens=8 * TINY["seq_len"]),
        "quant": Quant(keep_below=512),
    }
    return Recipe(**{**fields, **changes})
