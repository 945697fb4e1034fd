"""Pure functions of where a run stands: (step, elapsed_s) -> rates. No state and no clock."""

from __future__ import annotations

from dataclasses import dataclass

from core.train.recipe import Optim, Recipe, Schedule


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What the schedules say for one step."""

    step: int  # steps done before this one
    progress: float
    lr_mul: float
    momentum: float
    ema_decay: float


def knobs(recipe: Recipe, step: int, elapsed_s: float) -> Knobs:
    """All of them at once, for the step after `step` steps and elapsed_s seconds of training."""
    return Knobs(
        step=step,
        progress=progress(recipe.schedule, step, elapsed_s),
        lr_mul=lr_mul(recipe.schedule, step, elapsed_s),
        momentum=momentum(recipe.optim, step),
        ema_decay=recipe.optim.ema_decay,
    )


def progress(schedule: Schedule, step: int, elapsed_s: float) -> float:
    """How much of the run is done, 0 to 1, by steps or by seconds, whichever is further."""
    timed = elapsed_s / schedule.budget_s if schedule.budget_s else 0.0
    return min(max(step / schedule.steps, timed), 1.0)


def lr_mul(schedule: Schedule, step: int, elapsed_s: float) -> float:
    """1, then falling in a line over the warmdown to 0 at the end, never below the floor."""
    if not schedule.warmdown:
        return 1.0
    done = progress(schedule, step, elapsed_s)
    left = (1.0 - done) * _whole(schedule, step, elapsed_s, done)
    return max(min(left / schedule.warmdown, 1.0), schedule.lr_floor)


def momentum(optim: Optim, step: int) -> float:
    """Muon's momentum, rising in a line over its warm-up."""
    if step >= optim.momentum_warmup_steps:
        return optim.momentum
    risen = step / optim.momentum_warmup_steps
    return (1.0 - risen) * optim.momentum_start + risen * optim.momentum


def validates(recipe: Recipe, step: int) -> bool:
    """Whether a run scores itself after `step` steps; the end is scored in any case."""
    every = recipe.score.val_every_steps
    return every > 0 and step > 0 and step % every == 0


def _whole(schedule: Schedule, step: int, elapsed_s: float, done: float) -> float:
    """The length of the whole run in the warmdown's unit, at the pace so far.

    In steps under a clock this is the reference's rule: warmdown steps times the mean step time.
    """
    if schedule.warmdown_unit == "frac":
        return 1.0
    if schedule.warmdown_unit == "steps":
        by_steps = done * schedule.steps <= step
        return float(schedule.steps) if by_steps else step / done
    by_clock = done * schedule.budget_s <= elapsed_s
    if schedule.budget_s and by_clock:
        return schedule.budget_s
    return elapsed_s / done if done and elapsed_s else float("inf")
