"""Recipes: overrides, JSON, hash, and every recipe that does not add up."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from core.train.events import method
from core.train.recipe import Recipe, from_json, recipe_hash, to_json, with_changes
from core.train.recipes import RECIPES, baseline, named

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    recipe = named(name)
    assert recipe.name == name
    assert from_json(to_json(recipe), "x") == recipe


def test_the_baseline_is_the_tasks() -> None:
    """Every number of it: reference/techniques calls them the naive baseline."""
    recipe = baseline()
    assert to_json(recipe) == (GOLDEN / "recipe_baseline.json").read_text(encoding="utf-8")
    optim = recipe.optim
    assert (optim.matrix_lr, optim.embed_lr, optim.scalar_lr, optim.head_lr) == (
        0.04,
        0.05,
        0.04,
        0.008,
    )
    assert (optim.momentum_start, optim.momentum, optim.momentum_warmup_steps) == (0.85, 0.95, 500)
    assert (optim.beta1, optim.beta2, optim.adam_eps, optim.ns_steps) == (0.9, 0.95, 1e-8, 5)
    assert (optim.ema_decay, optim.grad_clip_norm) == (0.0, 0.0)
    assert (recipe.schedule.warmdown, recipe.schedule.warmdown_unit) == (1200, "steps")
    assert recipe.data.train_batch_tokens == 524_288 and recipe.arch.seq_len == 1024
    assert recipe.quant.scale_floor == 1 / 127 and recipe.quant.keep_below == 65_537
    assert (recipe.schedule.steps, recipe.schedule.budget_s) == (20_000, 600)


def test_the_untied_baseline_has_the_references_rate() -> None:
    assert named("untied").optim.embed_lr == 0.6 and not named("untied").arch.tie_embeddings


def test_changes_are_typed_and_checked_together() -> None:
    recipe = with_changes(
        Recipe(),
        ["arch.num_heads=4", "arch.num_kv_heads=2", "seed=7", "compile=off", "score.batch=2"],
    )
    assert (recipe.arch.num_heads, recipe.seed, recipe.compile, recipe.score.batch) == (
        4,
        7,
        "off",
        2,
    )
    assert Recipe().arch.num_heads == 8
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 1


WRONG = {
    "optim.matrix_lrr=1": "optim.matrix_lrr: no field 'matrix_lrr'; did you mean 'matrix_lr'?",
    "opt.matrix_lr=1": "opt.matrix_lr: no field 'opt'; did you mean 'optim'?",
    "optim.matrix_lr=fast": "optim.matrix_lr: expected float, found 'fast'",
    "optim=1": "optim: a section; name one of its fields",
    "data.train_batch_tokens=1000": "tokens 1000 must be a multiple of arch.seq_len 1024",
    "schedule.warmup_steps=4": "schedule.warmup_steps 4 must be 0 to 3",
    "schedule.lr_floor=2": "schedule.lr_floor 2.0 must be in [0, 1]",
    "schedule.steps=0": "schedule.steps 0 must be at least 1",
    "optim.beta2=1": "optim.beta2 1.0 must be in [0, 1)",
    "optim.ns_steps=0": "optim.ns_steps 0 must be at least 1",
    "optim.adam_eps=0": "optim.adam_eps 0.0 must be positive",
    "score.batch=0": "score.batch 0 must be at least 1",
    "score.limit_tokens=-1": "score.limit_tokens -1 must not be negative",
    "precision=fp16": "precision: expected 'autocast' or 'cast' or 'fp32', found 'fp16'",
    "quant.mlp=int9": "'int2' or 'ternary' or 'binary' or 'fp8' or 'fp16', found 'int9'",
    "quant.attn_sigmas=-1": "quant: sigmas -1.0 must be at least 0 and finite",
    "quant.embed_quantile=0": "quant: quantile 0.0 must be over 0, to 1",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_recipe_that_does_not_add_up(change: str) -> None:
    with pytest.raises(ValueError) as error:
        with_changes(Recipe(), [change])
    assert WRONG[change] in str(error.value)


def test_a_fraction_of_more_than_all() -> None:
    with pytest.raises(ValueError, match="at most 1 where its unit is frac"):
        with_changes(Recipe(), ["schedule.warmdown_unit=frac"])


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no recipe 'basline'; did you mean 'baseline'"):
        named("basline")
    with pytest.raises(ValueError, match="x: not JSON"):
        from_json("{", "x")
    with pytest.raises(ValueError, match="x: no field 'sections'"):
        from_json('{"sections": 1}', "x")
    with pytest.raises(ValueError, match=r"x.arch.num_layers: expected int, found '9'"):
        from_json('{"arch": {"num_layers": "9"}}', "x")


def test_the_hash_is_of_what_is_trained() -> None:
    same = with_changes(Recipe(), ["name=other", "data.path=/a", "data.tokenizer=/b"])
    assert recipe_hash(same) == recipe_hash(Recipe())
    for change in (
        "seed=1",
        "arch.norm_eps=1e-6",
        "optim.beta1=0.8",
        "data.train_batch_tokens=1024",
    ):
        assert recipe_hash(with_changes(Recipe(), [change])) != recipe_hash(Recipe()), change


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([], "int8+zlib"),
        (["quant.attn=int6", "quant.mlp=int6", "quant.embed=int7"], "int7+int6+zlib"),
        (["quant.embed=fp16", "quant.mlp=int5", "quant.codec=lzma"], "int8+int5+fp16+lzma"),
        (["quant.head=int4", "quant.control=int8"], "int8+zlib"),  # tied: it has no head
        (["quant.head=int4", "arch.tie_embeddings=false"], "int8+int4+zlib"),
    ],
)
def test_the_method_names_the_formats_of_the_matrices(changes: list[str], words: str) -> None:
    assert method(with_changes(Recipe(), changes), "+") == words
