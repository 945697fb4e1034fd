"""Schedules as pure functions: golden samples, the reference's rules, and the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.train.clock import BudgetClock, out_of_time
from core.train.recipe import Optim, Recipe, with_changes
from core.train.recipes import RECIPES
from core.train.schedules import (
    START,
    STEERED,
    Stage,
    after,
    knobs,
    lr_mul,
    momentum,
    progress,
    rates,
    stages,
    steered,
    validates,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "schedules.txt"
SAMPLES = [(0, 0.0), (1, 0.05), (10, 0.5), (250, 11.0), (499, 25.0), (10_000, 435.0)]
SAMPLES += [(13_000, 566.0), (13_780, 600.0), (20_000, 599.0)]


def schedules_text() -> str:
    lines = []
    for name, recipe in RECIPES.items():
        for step, elapsed_s in SAMPLES:
            k = knobs(recipe(), min(step, recipe().schedule.steps), elapsed_s)
            lines.append(
                f"{name} step {k.step} at {elapsed_s} s: progress {k.progress:.9f} "
                f"lr_mul {k.lr_mul:.9f} momentum {k.momentum:.9f} ema_decay {k.ema_decay}\n"
            )
    return "".join(lines)


def test_samples_are_golden() -> None:
    assert schedules_text() == GOLDEN.read_text(encoding="utf-8")


def schedule(**fields: object) -> Recipe:
    return with_changes(Recipe(), [f"schedule.{name}={value}" for name, value in fields.items()])


def test_progress_is_the_further_of_steps_and_seconds() -> None:
    plan = schedule(steps=100, budget_s=60).schedule
    assert progress(plan, 50, 6.0) == 0.5
    assert progress(plan, 50, 45.0) == 0.75
    assert progress(plan, 100, 0.0) == 1.0
    assert progress(plan, 1, 99.0) == 1.0
    assert progress(schedule(steps=100, budget_s=0).schedule, 50, 1e9) == 0.5


WARMDOWNS = [
    # fields, step, elapsed_s, multiplier
    ({"warmdown": 20, "warmdown_unit": "steps", "budget_s": 0}, 79, 0.0, 1.0),
    ({"warmdown": 20, "warmdown_unit": "steps", "budget_s": 0}, 90, 0.0, 0.5),
    ({"warmdown": 20, "warmdown_unit": "steps", "budget_s": 0}, 100, 0.0, 0.0),
    ({"warmdown": 0.2, "warmdown_unit": "frac", "budget_s": 0}, 90, 0.0, 0.5),
    ({"warmdown": 0.2, "warmdown_unit": "frac", "budget_s": 60}, 10, 57.0, 0.25),
    ({"warmdown": 12, "warmdown_unit": "seconds", "budget_s": 60}, 10, 57.0, 0.25),
    ({"warmdown": 20, "warmdown_unit": "steps", "budget_s": 60}, 10, 48.0, 0.125),
    ({"warmdown": 0.5, "warmdown_unit": "frac", "budget_s": 0, "lr_floor": 0.1}, 99, 0.0, 0.1),
    ({"warmdown": 0, "warmdown_unit": "frac", "budget_s": 0}, 99, 0.0, 1.0),
    ({"warmdown": 5, "warmdown_unit": "seconds", "budget_s": 0}, 90, 45.0, 1.0),
    ({"warmdown": 10, "warmdown_unit": "seconds", "budget_s": 0}, 90, 45.0, 0.5),
    ({"warmdown": 10, "warmdown_unit": "seconds", "budget_s": 0}, 0, 0.0, 1.0),
]


@pytest.mark.parametrize(("fields", "step", "elapsed_s", "expected"), WARMDOWNS)
def test_warmdown(fields: dict[str, object], step: int, elapsed_s: float, expected: float) -> None:
    """In steps under a clock: seconds left over (warmdown steps x mean step time)."""
    plan = schedule(steps=100, **fields).schedule
    assert lr_mul(plan, step, elapsed_s) == pytest.approx(expected, abs=1e-12)


def test_momentum_rises_over_its_warm_up() -> None:
    optim = Recipe().optim
    assert momentum(optim, 0) == 0.85
    assert momentum(optim, 250) == pytest.approx(0.9)
    assert momentum(optim, 500) == momentum(optim, 9999) == 0.95
    assert momentum(with_changes(Recipe(), ["optim.momentum_warmup_steps=0"]).optim, 0) == 0.95


def test_validation_comes_between_not_at_the_ends() -> None:
    recipe = with_changes(Recipe(), ["score.val_every_steps=10"])
    assert [step for step in range(25) if validates(recipe, step)] == [10, 20]
    never = with_changes(Recipe(), ["score.val_every_steps=0"])
    assert not any(validates(never, step) for step in range(25))


def test_the_clock_charges_phases() -> None:
    times = iter([0.0, 1.0, 3.0, 10.0, 10.5])
    clock = BudgetClock(lambda: next(times))
    with clock.phase("quantize"):
        pass
    with pytest.raises(RuntimeError), clock.phase("quantize"):
        raise RuntimeError
    assert clock.phases() == {"quantize": 2.5}


def test_laps_leave_nothing_out_but_phases() -> None:
    """Made at 0, begun at 5; laps end at 8 and 20, with a phase from 10 to 16 in the second."""
    times = iter([0.0, 5.0, 8.0, 10.0, 16.0, 20.0])
    clock = BudgetClock(lambda: next(times))
    clock.begin(lap_s=1.0)
    assert clock.next_s() == 1.0
    assert clock.lap("train") == 3.0
    with clock.phase("score"):
        pass
    assert clock.lap("train") == 3.0 + 6.0
    assert clock.next_s() == 6.0
    assert clock.phases() == {"train": 9.0, "score": 6.0}


def test_a_run_stops_before_its_budget() -> None:
    assert not out_of_time(600.0, 598.0, 1.5)
    assert out_of_time(600.0, 598.0, 2.5)
    assert not out_of_time(0.0, 1e9, 1.0)


def test_the_mean_of_snapshots() -> None:
    """Every third step of the last fifth: what the running average makes of these decays."""
    changes = ["schedule.steps=20", "schedule.budget_s=0", "schedule.warmdown=10"]
    recipe = with_changes(Recipe(), [*changes, "optim.swa_every_steps=3", "optim.swa_below=0.65"])
    state: dict[str, float] = dict(START)
    average, taken = 0.0, []
    for step in range(20):
        dials = knobs(recipe, step, 0.0, int(state["snapshots"]))
        weight = float((step + 1) ** 2)
        average = dials.ema_decay * average + (1 - dials.ema_decay) * weight
        if dials.averaged:
            taken.append(weight)
        assert average == pytest.approx(sum(taken) / len(taken) if taken else weight)
        state |= after(recipe, state, dials)
    assert taken == [15**2, 18**2]  # behind steps of 0.6 and 0.3 of the rate
    assert state["snapshots"] == 2 and state["tokens_done"] == 20 * 524_288


def test_decays_are_steered_to_a_byte_target() -> None:
    """Up while there are too many bytes, down while there are fewer, within limits."""
    optim = Optim(wd_target_bytes=1000, wd_gain=2.0)
    assert steered(optim, 1.0, 1100) == pytest.approx(1.21)
    assert steered(optim, 2.0, 500) == pytest.approx(0.5)
    assert steered(optim, 60.0, 9000) == STEERED and steered(optim, 0.02, 10) == 1 / STEERED
    assert steered(optim, 3.0, 0) == 3.0, "what could not be packed says nothing"
    assert steered(Optim(), 3.0, 9000) == 3.0
    recipe = with_changes(Recipe(), ["optim.matrix_wd=0.1", "optim.wd_taper_start=0.5"])
    plain, doubled = (rates(recipe.optim, knobs(recipe, 15_000, 0.0, 0, mul)) for mul in (1.0, 2.0))
    assert doubled["matrix_decay"] == pytest.approx(2 * plain["matrix_decay"])


def test_stages_are_what_a_run_comes_through() -> None:
    looped = '[{"at": 0, "order": [0, 1]}, {"at": 0.3, "order": [0, 1, 1]}]'
    rows = '{"at": %s, "train_batch_tokens": %s, "seq_len": 512}'
    changes = ["arch.num_layers=2", f"arch.phases={looped}", "qat.form=ste", "qat.start=0.5"]
    batches = f"[{rows % (0, 1024)}, {rows % (0.3, 2048)}]"
    recipe = with_changes(Recipe(), [*changes, f"data.batch_schedule={batches}"])
    assert stages(recipe) == (
        Stage(phase=0, batch_phase=0),
        Stage(phase=1, batch_phase=1),
        Stage(phase=1, batch_phase=1, qat=True),
    )
    assert stages(Recipe()) == (Stage(phase=0),)
    dials = knobs(recipe, 6000, 0.0)
    assert after(recipe, {**START, "tokens_done": 7}, dials)["tokens_done"] == 7 + 2048


def test_two_averages_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="swa_every_steps 5 must be .* 0 beside optim.ema_decay"):
        with_changes(Recipe(), ["optim.ema_decay=0.9", "optim.swa_every_steps=5"])
