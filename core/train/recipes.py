"""Named recipes as functions: starting points for overrides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.arch.fields import closest
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.data.batches import Data
from core.score.scoring import Score
from core.train.frontier import binary, r1061, r1081, ternary, universal
from core.train.recipe import Optim, Recipe, Schedule


def baseline() -> Recipe:
    """The task's naive baseline on 8 GPUs: 9 x 512, vocabulary 1024, 524,288 tokens a step.

    Its quantizer has the reference scripts' floor under the scales.
    """
    return Recipe(name="baseline", data=Data(micro_batch=64), quant=Quant(scale_floor=1 / 127))


def untied() -> Recipe:
    """The baseline with a head of its own: embeddings start as N(0, 1) and take 0.6, not 0.05."""
    base = baseline()
    return replace(
        base,
        name="untied",
        arch=replace(base.arch, tie_embeddings=False),
        optim=replace(base.optim, embed_lr=0.6),
    )


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


def mac_8g() -> Recipe:
    """A Mac with 8 GB: 6 x 384 in rows of 512, 8,192 tokens a step."""
    arch = ModelSpec(
        num_layers=6, model_dim=384, num_heads=6, num_kv_heads=3, mlp_dim=768, seq_len=512
    )
    return _mac("mac-8g", arch, 8_192, rate=0.020)


def mac_16g() -> Recipe:
    """A Mac with 16 GB: 8 x 512 in rows of 1,024, 16,384 tokens a step."""
    return _mac("mac-16g", ModelSpec(num_layers=8), 16_384, rate=0.025)


def mac_32g() -> Recipe:
    """A Mac with 32 GB or more: the baseline's 9 x 512, 32,768 tokens a step."""
    return _mac("mac-32g", ModelSpec(), 32_768, rate=0.030)


def _mac(name: str, arch: ModelSpec, train_batch_tokens: int, rate: float) -> Recipe:
    """Ten minutes with settings for 8k to 32k tokens a step, 1/64 to 1/16 of the task's.

    Muon's and Adam's steps have the same length however noisy the gradient is, and the noise grows
    as the batch shrinks: so half to three quarters of the baseline's rates, a longer memory of the
    squares (beta2) and an average over the last hundred steps. Some hundred steps fit, not 13,780:
    so momentum warms up in 100, and the warmdown is half of the run by whichever of clock and steps
    is further - 1,200 steps would decay from the first one. Micro-batches are left to the machine.
    Public runs at these batches used rates of 0.02 to 0.03; not tuned on a Mac yet.
    """
    return Recipe(
        name=name,
        arch=arch,
        optim=Optim(
            matrix_lr=rate,
            embed_lr=1.5 * rate,
            scalar_lr=rate,
            momentum_warmup_steps=100,
            beta2=0.99,
            ema_decay=0.99,
        ),
        schedule=Schedule(
            steps=2_000, budget_s=600.0, warmdown=0.5, warmdown_unit="frac", log_every_steps=20
        ),
        data=Data(train_batch_tokens=train_batch_tokens),
        score=Score(batch=16, val_every_steps=500, subset="spread-1m"),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (
        *(baseline, untied, r1081, r1061, ternary, binary, universal),
        *(small, demo, smoke, mac_8g, mac_16g, mac_32g),
    )
}
_GIB = 1 << 30


def named(name: str) -> Recipe:
    """A recipe by its name; mac_8g is mac-8g."""
    known = name.replace("_", "-")
    if known not in RECIPES:
        raise ValueError(f"no recipe {name!r}; {closest(name, RECIPES)}")
    return RECIPES[known]()


def for_memory(memory_bytes: int) -> Recipe:
    """The Mac preset for so much unified memory: each serves from three quarters of its name on."""
    if memory_bytes >= 24 * _GIB:
        return mac_32g()
    return mac_16g() if memory_bytes >= 12 * _GIB else mac_8g()
