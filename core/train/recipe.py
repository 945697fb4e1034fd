"""Recipe: one run as frozen data - architecture, optimizer, schedule, data, quantizer, score."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from core.arch.fields import changed, from_plain, override, to_plain
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.data.batches import Data
from core.score.scoring import Score
from core.train.newton_schulz import NSTable
from core.train.qat import Qat, rounded_grids

Precision = Literal["autocast", "cast", "fp32"]
Compile = Literal["auto", "on", "off"]
Kernels = Literal["auto", "on", "off"]
WarmdownUnit = Literal["frac", "steps", "seconds"]
LEAST_ZERO = (
    *("matrix_lr", "embed_lr", "head_lr", "scalar_lr"),
    *("matrix_wd", "embed_wd", "head_wd", "scalar_wd", "wd_taper_to"),
)


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Muon for the matrices, Adam with a rate of its own for each other rule of the table."""

    matrix_lr: float = 0.04
    embed_lr: float = 0.05  # of tied embeddings; the recipe `untied` has 0.6
    head_lr: float = 0.008
    scalar_lr: float = 0.04
    momentum: float = 0.95
    momentum_start: float = 0.85
    momentum_warmup_steps: int = 500
    ns_table: NSTable = "quintic"
    ns_steps: int = 5
    ns_precision: Literal["bf16", "fp32"] = "bf16"
    row_norm: Literal["none", "l2"] = "none"  # of what Newton-Schulz gets: MuonEq-R
    row_beta2: float = 0.0  # of the running mean square of a row that divides it: NorMuon; 0: none
    beta1: float = 0.9
    beta2: float = 0.95
    embed_betas: tuple[float, ...] | None = None  # none: beta1 and beta2
    head_betas: tuple[float, ...] | None = None
    scalar_betas: tuple[float, ...] | None = None
    adam_eps: float = 1e-8
    matrix_wd: float = 0.0  # decoupled: each step keeps 1 - rate * decay of the weight
    embed_wd: float = 0.0
    head_wd: float = 0.0
    scalar_wd: float = 0.0
    wd_taper_start: float = 1.0  # from this progress on all decays go in a line ...
    wd_taper_to: float = 1.0  # ... to this part of themselves at the end
    wd_target_bytes: int = 0  # of code and model, that all decays are steered to; 0: they are not
    wd_gain: float = 8.0  # each look at the bytes multiplies them by (bytes / target) ** wd_gain
    rate_lambda: float = 0.0  # nats a token that an estimated bit a weight costs, in the gradient
    z_loss: float = 0.0  # times the square of the log of what the softmax divides by, in the loss
    grad_clip_norm: float = 0.0  # of all gradients as one vector; 0: as they are
    ema_decay: float = 0.0  # 0: the weights themselves are what is packed
    swa_every_steps: int = 0  # or their mean over snapshots so far apart; 0: none
    swa_below: float = 0.2  # taken once the rates' multiplier is below this

    def __post_init__(self) -> None:
        for name in (*LEAST_ZERO, "grad_clip_norm", "z_loss", "rate_lambda", "wd_gain"):
            fits = 0 <= getattr(self, name) < math.inf
            _need(fits, f"optim.{name}", getattr(self, name), "at least 0 and finite")
        target = self.wd_target_bytes
        _need(target >= 0, "optim.wd_target_bytes", target, "at least 0")
        steps = self.momentum_warmup_steps
        _need(steps >= 0, "optim.momentum_warmup_steps", steps, "at least 0")
        _need(
            0 <= self.wd_taper_start <= 1, "optim.wd_taper_start", self.wd_taper_start, "in [0, 1]"
        )
        for name in ("momentum", "momentum_start", "beta1", "beta2", "row_beta2", "ema_decay"):
            inside = 0 <= getattr(self, name) < 1
            _need(inside, f"optim.{name}", getattr(self, name), "in [0, 1)")
        for rule in ("embed", "head", "scalar"):
            pair = self.betas(rule)
            fits = len(pair) == 2 and all(0 <= beta < 1 for beta in pair)
            _need(fits, f"optim.{rule}_betas", pair, "two numbers in [0, 1)")
        every = self.swa_every_steps
        fits = every == 0 or (every > 0 and not self.ema_decay)
        _need(fits, "optim.swa_every_steps", every, "at least 0, and 0 beside optim.ema_decay")
        _need(self.swa_below > 0, "optim.swa_below", self.swa_below, "positive")
        _need(self.ns_steps >= 1, "optim.ns_steps", self.ns_steps, "at least 1")
        _need(0 < self.adam_eps < math.inf, "optim.adam_eps", self.adam_eps, "positive and finite")

    @property
    def averages(self) -> bool:
        """Whether an average of the weights is packed in their place."""
        return self.ema_decay > 0 or self.swa_every_steps > 0

    def betas(self, rule: str) -> tuple[float, ...]:
        """Adam's two decays for parameters of this rule."""
        own = {"embed": self.embed_betas, "head": self.head_betas, "scalar": self.scalar_betas}
        return own.get(rule) or (self.beta1, self.beta2)

    def decay(self, rule: str) -> float:
        """The weight decay of parameters of this rule."""
        decays = {"matrix": self.matrix_wd, "embed": self.embed_wd, "head": self.head_wd}
        return decays.get(rule, self.scalar_wd)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, and how the rates move. progress = max(step / steps, elapsed_s / budget_s)."""

    steps: int = 20_000
    budget_s: float = 600.0  # of training; 0: no limit
    warmup_steps: int = 2  # run to compile and to time, then rolled back; outside the budget
    warmdown: float = 1200.0  # the last part of the run, in the unit of the next field
    warmdown_unit: WarmdownUnit = "steps"
    lr_floor: float = 0.0  # the multiplier never falls below this
    log_every_steps: int = 200

    def __post_init__(self) -> None:
        _need(self.steps >= 1, "schedule.steps", self.steps, "at least 1")
        fits = 0 <= self.budget_s < math.inf
        _need(fits, "schedule.budget_s", self.budget_s, "at least 0 and finite")
        _need(0 <= self.warmup_steps <= 3, "schedule.warmup_steps", self.warmup_steps, "0 to 3")
        _need(self.warmdown >= 0, "schedule.warmdown", self.warmdown, "at least 0")
        fits = self.warmdown_unit != "frac" or self.warmdown <= 1
        _need(fits, "schedule.warmdown", self.warmdown, "at most 1 where its unit is frac")
        _need(0 <= self.lr_floor <= 1, "schedule.lr_floor", self.lr_floor, "in [0, 1]")
        _need(self.log_every_steps >= 1, "schedule.log_every_steps", self.log_every_steps, ">= 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run depends on but the data's bytes and the machine."""

    name: str = "baseline"
    seed: int = 1337
    precision: Precision = "autocast"  # fp32 weights; bf16 products, or fp32 throughout
    compile: Compile = "auto"  # auto: on an accelerator
    deterministic: bool = False  # the same bits again from the same seed, where it costs speed
    kernels: Kernels = "auto"  # Triton's, of the torch engine; auto: none, as none is measured
    arch: ModelSpec = field(default_factory=ModelSpec)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    data: Data = field(default_factory=Data)
    qat: Qat = field(default_factory=Qat)
    quant: Quant = field(default_factory=Quant)
    score: Score = field(default_factory=Score)

    def __post_init__(self) -> None:
        self.data.phases(self.arch.seq_len)  # raises where they do not fit
        if self.qat.form != "none":
            rounded_grids(self.arch, self.quant, self.qat)


def with_changes(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """The recipe with each `section.field=value` applied."""
    return override(recipe, changes, "recipe")


def as_plain(recipe: Recipe) -> dict[str, Any]:
    """As JSON data: its name, its seed, where its data lies, and of all else what is no default.

    So a field that comes anew changes no recipe's hash; and a default, once it is one, stays.
    """
    plain = changed(recipe)
    where = {"path": recipe.data.path, "tokenizer": recipe.data.tokenizer}
    named = {"name": recipe.name, "seed": recipe.seed}
    return {**named, **plain, **named, "data": {**plain.get("data", {}), **where}}


def to_json(recipe: Recipe) -> str:
    """All of it."""
    return json.dumps(to_plain(recipe), indent=2) + "\n"


def from_json(text: str, where: str) -> Recipe:
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from None
    return from_plain(Recipe, data, where)


def recipe_hash(recipe: Recipe) -> str:
    """sha256 of what is trained: all fields but the name and where the files lie."""
    plain = as_plain(recipe)
    del plain["name"], plain["data"]["path"], plain["data"]["tokenizer"]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _need(holds: bool, name: str, value: object, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} {value} must be {what}")
