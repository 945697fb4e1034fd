"""Pure functions of where a run stands: (step, elapsed_s) -> rates. No state and no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.arch.spec import ModelSpec
from core.train.recipe import Optim, Recipe, Schedule


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What has a graph of its own; by default what is scored: the last order, unrounded."""

    phase: int = -1  # of arch.phases: the order of the blocks
    batch_phase: int = 0  # of data.batch_schedule: the shape of the batches
    qat: bool = False  # whether the matrices are rounded


PLAIN = Stage()
START = {"step": 0, "elapsed_s": 0.0, "tokens_done": 0, "snapshots": 0, "wd_steer": 1.0}
STEERED = 64.0  # times the decays at most, and one over it at least


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What the schedules say for one step."""

    step: int  # steps done before this one
    progress: float
    lr_mul: float
    momentum: float
    ema_decay: float
    wd_mul: float = 1.0
    averaged: bool = False  # whether the weights behind this step enter the average of snapshots
    stage: Stage = PLAIN


def knobs(
    recipe: Recipe, step: int, elapsed_s: float, snapshots: int = 0, wd_steer: float = 1.0
) -> Knobs:
    """All of them at once, for the step after `step` steps and elapsed_s seconds of training.

    snapshots: how many have entered their average so far. wd_steer: what a byte target has made of
    the decays so far.
    """
    done = progress(recipe.schedule, step, elapsed_s)
    rate = lr_mul(recipe.schedule, step, elapsed_s)
    snapshot = takes_snapshot(recipe.optim, step, rate)
    return Knobs(
        step=step,
        progress=done,
        lr_mul=rate,
        momentum=momentum(recipe.optim, step),
        ema_decay=ema_decay(recipe.optim, snapshot, snapshots),
        averaged=snapshot,
        wd_mul=wd_mul(recipe.optim, done) * wd_steer,
        stage=stage(recipe, done),
    )


def rates(optim: Optim, knobs: Knobs) -> dict[str, float]:
    """What one step multiplies by: a rate for each rule, momentum, average, Adam's corrections.

    <rule>_decay, where there is one: the part of a weight that decoupled decay takes (Loshchilov
    and Hutter 2019).
    """
    own = {
        "matrix": optim.matrix_lr * knobs.lr_mul,
        "embed": optim.embed_lr * knobs.lr_mul,
        "head": optim.head_lr * knobs.lr_mul,
        "scalar": optim.scalar_lr * knobs.lr_mul,
    }
    dials = {**own, "momentum": knobs.momentum, "ema_decay": knobs.ema_decay}
    for rule, rate in own.items():
        if optim.decay(rule):
            dials[f"{rule}_decay"] = rate * optim.decay(rule) * knobs.wd_mul
        if rule != "matrix":
            beta1, beta2 = optim.betas(rule)
            dials[f"{rule}_mean_left"] = 1.0 - beta1 ** (knobs.step + 1)
            dials[f"{rule}_square_left"] = 1.0 - beta2 ** (knobs.step + 1)
    return dials


def progress(schedule: Schedule, step: int, elapsed_s: float) -> float:
    """How much of the run is done, 0 to 1, by steps or by seconds, whichever is further."""
    timed = elapsed_s / schedule.budget_s if schedule.budget_s else 0.0
    return min(max(step / schedule.steps, timed), 1.0)


def lr_mul(schedule: Schedule, step: int, elapsed_s: float) -> float:
    """1, then falling in a line over the warmdown to 0 at the end, never below the floor."""
    if not schedule.warmdown:
        return 1.0
    left = _left(schedule, step, elapsed_s)
    return max(min(left / schedule.warmdown, 1.0), schedule.lr_floor)


def momentum(optim: Optim, step: int) -> float:
    """Muon's momentum, rising in a line over its warm-up."""
    if step >= optim.momentum_warmup_steps:
        return optim.momentum
    risen = step / optim.momentum_warmup_steps
    return (1.0 - risen) * optim.momentum_start + risen * optim.momentum


def wd_mul(optim: Optim, done: float) -> float:
    """1, then in a line from wd_taper_start on to wd_taper_to at the end."""
    start = optim.wd_taper_start
    if optim.wd_taper_to == 1.0 or done <= start:
        return 1.0
    risen = (done - start) / (1.0 - start)
    return 1.0 + risen * (optim.wd_taper_to - 1.0)


def steered(optim: Optim, wd_steer: float, artifact_bytes: int) -> float:
    """The multiplier of all decays behind a look at the bytes that the run would have now."""
    if not optim.wd_target_bytes or not artifact_bytes:
        return wd_steer
    found: float = wd_steer * (artifact_bytes / optim.wd_target_bytes) ** optim.wd_gain
    return min(max(found, 1 / STEERED), STEERED)


def phase(spec: ModelSpec, done: float) -> int:
    """Which of the spec's phases is on at this progress; they begin at 0."""
    return max(sum(phase.at <= done for phase in spec.phases) - 1, 0)


def takes_snapshot(optim: Optim, step: int, rate: float) -> bool:
    """Whether the weights behind this step enter the average: every so many steps, late."""
    every = optim.swa_every_steps
    return every > 0 and (step + 1) % every == 0 and rate < optim.swa_below


def ema_decay(optim: Optim, snapshot: bool, snapshots: int) -> float:
    """What the average keeps of itself in this step.

    The mean of n snapshots keeps (n - 1) / n when the n-th comes and all of itself in between;
    before the first one it is the weights themselves.
    """
    if not optim.swa_every_steps:
        return optim.ema_decay
    kept = snapshots / (snapshots + 1)
    return kept if snapshot or not snapshots else 1.0


def stage(recipe: Recipe, done: float) -> Stage:
    """What runs at this progress."""
    return Stage(
        phase=phase(recipe.arch, done),
        batch_phase=recipe.data.phase(done),
        qat=recipe.qat.on(done),
    )


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """All that a run comes through, in order: what is compiled before the clock starts."""
    orders, batches = recipe.arch.phases, recipe.data.batch_schedule
    starts = {0.0, recipe.qat.start, *(p.at for p in orders), *(p.at for p in batches)}
    return tuple(dict.fromkeys(stage(recipe, at) for at in sorted(starts)))


def after(recipe: Recipe, state: dict[str, Any], dials: Knobs) -> dict[str, int]:
    """The state's numbers behind the step of these dials."""
    tokens = recipe.data.phases(recipe.arch.seq_len)[dials.stage.batch_phase].train_batch_tokens
    return {
        "step": dials.step + 1,
        "tokens_done": state["tokens_done"] + tokens,
        "snapshots": state["snapshots"] + dials.averaged,
    }


def validates(recipe: Recipe, step: int) -> bool:
    """Whether a run scores itself after `step` steps; the end is scored in any case."""
    every = recipe.score.val_every_steps
    return every > 0 and step > 0 and step % every == 0


def _left(schedule: Schedule, step: int, elapsed_s: float) -> float:
    """What is left of the run, in the warmdown's unit, at the pace so far.

    Steps under a budget are the reference's rule: seconds left over the mean step time, whatever
    the number of steps. (Where fewer than the warmdown fit, its rates fall from the first step.)
    """
    timed = elapsed_s / schedule.budget_s if schedule.budget_s else 0.0
    if schedule.warmdown_unit == "frac":
        return 1.0 - progress(schedule, step, elapsed_s)
    if schedule.warmdown_unit == "steps":
        if not schedule.budget_s:
            return float(max(schedule.steps - step, 0))
        return (1.0 - min(timed, 1.0)) / timed * step if timed else float("inf")
    left_s = schedule.budget_s - elapsed_s if schedule.budget_s else float("inf")
    pace_s = elapsed_s / step if step else 0.0
    return max(min(left_s, (schedule.steps - step) * pace_s if pace_s else left_s), 0.0)
