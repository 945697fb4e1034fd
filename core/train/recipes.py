"""Named recipes as functions: starting points for overrides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.arch.fields import closest
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.data.batches import Data
from core.score.scoring import Score
from core.train.recipe import Optim, Recipe, Schedule


def baseline() -> Recipe:
    """The task's naive baseline on 8 GPUs: 9 x 512, vocabulary 1024, 524,288 tokens a step.

    Its quantizer has the reference scripts' floor under the scales.
    """
    return Recipe(name="baseline", data=Data(micro_batch=64), quant=Quant(scale_floor=1 / 127))


def small() -> Recipe:
    """A 4 x 256 model for a laptop or two CPU cores: minutes, with every part of the baseline."""
    return Recipe(
        name="small",
        precision="fp32",
        arch=ModelSpec(
            num_layers=4, model_dim=256, num_heads=4, num_kv_heads=2, mlp_dim=512, seq_len=256
        ),
        optim=Optim(
            matrix_lr=0.02,
            embed_lr=0.03,
            scalar_lr=0.02,
            momentum_warmup_steps=100,
            ns_precision="fp32",
            ema_decay=0.98,
        ),
        schedule=Schedule(
            steps=400, budget_s=0.0, warmdown=0.5, warmdown_unit="frac", log_every_steps=20
        ),
        data=Data(train_batch_tokens=4096, micro_batch=0),
        quant=Quant(keep_below=4096),
        score=Score(batch=16, val_every_steps=100),
    )


def demo() -> Recipe:
    """What `golf demo` trains: the small model's parts at 4 x 192, for 100 seconds."""
    base = small()
    return replace(
        base,
        name="demo",
        arch=replace(base.arch, model_dim=192, mlp_dim=384),
        schedule=replace(base.schedule, steps=100_000, budget_s=100.0),
        data=replace(base.data, train_batch_tokens=2048),
    )


def smoke() -> Recipe:
    """A 2 x 64 model that trains in seconds: does everything work here?"""
    return Recipe(
        name="smoke",
        precision="fp32",
        arch=ModelSpec(
            num_layers=2, model_dim=64, num_heads=4, num_kv_heads=2, mlp_dim=128, seq_len=64
        ),
        optim=Optim(momentum_warmup_steps=10, ns_precision="fp32", ema_decay=0.9),
        schedule=Schedule(
            steps=20, budget_s=0.0, warmdown=0.5, warmdown_unit="frac", log_every_steps=5
        ),
        data=Data(train_batch_tokens=1024),
        quant=Quant(keep_below=1024),
        score=Score(batch=16, val_every_steps=10),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (baseline, small, demo, smoke)
}


def named(name: str) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; {closest(name, RECIPES)}")
    return RECIPES[name]()
