"""The one table of tiny architectures that both engines must agree on: a row a technique."""

from __future__ import annotations

from dataclasses import replace

from core.arch.depth import Pair, Phase
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.data.batches import BatchPhase, Data
from core.train.qat import Qat
from core.train.recipe import Optim, Recipe, Schedule
from core.train.recipes import named
from core.train.scale import scaled

TINY = {
    "vocab_size": 96,
    "num_layers": 3,
    "model_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "mlp_dim": 64,
    "seq_len": 24,
}

LOOPED = (
    Phase(at=0.0, order=(0, 1, 2)),
    Phase(at=0.2, order=(0, 1, 1, 2)),
    Phase(at=0.4, order=(0, 1, 2, 1, 2, 1, 2)),
)

TIED = (  # four MLPs and two attentions
    Phase(at=0.0, order=(0, Pair(attn=0, mlp=1), 2, Pair(attn=2, mlp=3))),
    Phase(at=0.3, order=(0, Pair(attn=2, mlp=1), 2, Pair(attn=0, mlp=3), Pair(attn=2, mlp=0))),
)
APART = {  # three attentions and two MLPs, and what goes by the attention's block
    "phases": (Phase(at=0.0, order=(0, Pair(attn=1, mlp=0), 2, Pair(attn=1, mlp=2))),),
    "value_residual": True,
    "value_embed_dim": 8,
    "value_embed_last": 2,
    "xsa_last": 1,
    "visit_scale": True,
}

CASES: dict[str, dict[str, object]] = {  # fields of the spec
    "baseline": {},
    "even_layers": {"num_layers": 4},
    "one_layer": {"num_layers": 1},
    "no_skips": {"skips": "none"},
    "untied": {"tie_embeddings": False},
    "partial_rope": {"rope_dims": 4},
    "no_rope": {"rope_dims": 0},
    "other_rope_base": {"rope_base": 500.0},
    "rope_ntk": {"rope_scaling": "ntk", "rope_train_len": 12},
    "rope_yarn": {"rope_scaling": "yarn", "rope_train_len": 12, "rope_max_len": 48},
    "leaky_relu2": {"activation": "leaky_relu2", "leaky_slope": 0.5},
    "relu": {"activation": "relu"},
    "swiglu": {"activation": "swiglu"},
    "all_heads_own_kv": {"num_kv_heads": 4},
    "one_kv_head": {"num_kv_heads": 1},
    "wide_mlp": {"mlp_dim": 128},
    "low_softcap": {"logit_softcap": 5.0},
    "no_softcap": {"logit_softcap": 0.0},
    "poly5_softcap": {"softcap": "poly5", "logit_softcap": 2.0},
    "large_norm_eps": {"norm_eps": 1e-3},
    "large_gain": {"qk_gain_init": 5.0},
    "orthogonal_init": {"matrix_init": "orthogonal"},
    "normal_init": {"matrix_init": "normal"},
    "looped": {"phases": LOOPED},
    "universal": {"phases": (Phase(at=0.0, order=(0, 1, 2) * 2),), "step_embed": True},
    "partial_tying": {"num_layers": 4, "phases": TIED, "ln_scale": True, "windows": (4, 0)},
    "partial_tying_parallel": {**APART, "routing": "parallel", "routing_start": 1},
    "partial_tying_lanes": {**APART, "routing": "lanes", "routing_start": 1, "skips": "none"},
    "partial_tying_lanes_in_turn": {**APART, "routing": "lanes_in_turn", "routing_start": 2},
    "visit_scale": {"phases": LOOPED, "visit_scale": True},
    "skip_gates": {"num_layers": 4, "skip_gates": True},
    "ln_scale": {"ln_scale": True},
    "parallel": {"routing": "parallel", "routing_start": 1},
    "lanes": {"num_layers": 4, "routing": "lanes", "routing_start": 2},
    "lanes_in_turn": {"num_layers": 4, "routing": "lanes_in_turn", "routing_start": 3},
    "lanes_twice": {
        "routing": "lanes",
        "routing_start": 2,
        "skips": "none",
        "phases": (Phase(at=0.0, order=(0, 2, 1, 2)),),
    },
    "xsa": {"xsa_last": 2},
    "attn_gate": {"attn_gate_dims": 12, "attn_gate_scale": 0.5},
    "attn_gate_dense": {"attn_gate_dims": 32, "attn_gate_gain": 2.0, "attn_gate_init_std": 0.005},
    "windows": {"windows": (4, 0)},
    "doc_mask": {"doc_mask": True, "windows": (0, 6)},
    "smear_static": {"smear": "static"},
    "smear_content": {"smear": "content"},
    "bigram": {"bigram_buckets": 50, "bigram_dim": 16},
    "value_embed": {"value_embed_dim": 8, "value_embed_last": 2},
    "value_residual": {"value_residual": True},
    "head_bias": {"head_bias": True},
    "ternary": {"linear": "ternary", "linear_group": 32, "norm_out_proj": True},
    "binary": {"linear": "binary", "linear_group": 16},
    "random": {"linear": "random", "linear_seed": 5, "adapter_rank": 4},
    "random_alone": {"linear": "random", "matrix_init": "orthogonal"},
    "random_swiglu": {
        "linear": "random",
        "adapter_rank": 6,
        "activation": "swiglu",
        "matrix_init": "orthogonal",
        "norm_out_proj": True,
    },
    "factored": {"embed_dim": 20},
    "factored_untied": {"embed_dim": 20, "tie_embeddings": False},
}
RULES: dict[str, dict[str, object]] = {  # fields of the optimizer
    "weight_decay": {"matrix_wd": 0.4, "embed_wd": 0.3, "scalar_wd": 0.2},
    "wd_taper": {"matrix_wd": 0.4, "wd_taper_start": 0.1, "wd_taper_to": 0.5},
    "betas": {"embed_betas": (0.8, 0.9), "scalar_betas": (0.5, 0.99)},
    "polar": {"ns_table": "polar"},
    "row_norm": {"row_norm": "l2"},
    "normuon": {"row_beta2": 0.95},
    "clipped": {"grad_clip_norm": 0.3},
    "z_loss": {"z_loss": 0.01},
    "wd_target": {"wd_target_bytes": 5000, "matrix_wd": 0.4},
    "rate": {"rate_lambda": 0.5},
    "swa": {"ema_decay": 0.0, "swa_every_steps": 1, "swa_below": 1.5},
}
RECIPES = ("r1081", "r1061", "ternary", "binary", "universal")
QATS: dict[str, dict[str, object]] = {  # fields of the rounding in training
    "qat": {"form": "ste"},
    "qat_noise": {"form": "noise", "roles": ("attn", "mlp")},
}
QUANTS: dict[str, dict[str, object]] = {  # and of what it is packed as
    "qat": {"attn": "int7"},
    "qat_noise": {"attn": "int5", "mlp": "int6", "mlp_sigmas": 12.85},
}
BATCHES: dict[str, dict[str, object]] = {  # fields of the data
    "batch_schedule": {
        "batch_schedule": (
            BatchPhase(at=0.0, train_batch_tokens=96, seq_len=12),
            BatchPhase(at=0.5, train_batch_tokens=192, seq_len=24),
        )
    },
}
CASES |= {name: {} for name in (*RULES, *QATS, *BATCHES, *RECIPES)}


def spec_of(case: str) -> ModelSpec:
    if case not in RECIPES:
        return ModelSpec(**{**TINY, **CASES[case]})
    tiny = Recipe(arch=ModelSpec(**TINY), data=Data(train_batch_tokens=8 * TINY["seq_len"]))
    return replace(scaled(named(case), tiny).arch, vocab_size=TINY["vocab_size"])


def optim_of(case: str) -> Optim:
    """Moderate rates that all move: warm-up, warmdown, average; the rest as the case has it."""
    base = named(case).optim if case in RECIPES else Optim()
    return replace(
        base,
        matrix_lr=0.01,
        embed_lr=0.0125,
        head_lr=0.008,
        scalar_lr=0.01,
        momentum_warmup_steps=5,
        ns_precision="fp32",
        **{"ema_decay": 0.9, **RULES.get(case, {})},
    )


def recipe_of(case: str, **changes: object) -> Recipe:
    """fp32, moderate rates, and a schedule that moves everything."""
    fields = {
        "name": case,
        "precision": "fp32",
        "arch": spec_of(case),
        "optim": optim_of(case),
        "schedule": Schedule(steps=20, budget_s=0.0, warmdown=0.5, warmdown_unit="frac"),
        "data": Data(train_batch_tokens=8 * TINY["seq_len"], **BATCHES.get(case, {})),
        "qat": Qat(**QATS.get(case, {})),
        "quant": Quant(keep_below=512, **QUANTS.get(case, {})),
    }
    return Recipe(**{**fields, **changes})
