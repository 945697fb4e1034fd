"""What a rehearsal comes to: each budget of the real run, extrapolated, with its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.artifact.ledger import CAP_BYTES
from core.train.recipe import Recipe
from core.train.schedules import Stage, progress, stage, stages
from tools.costs import TASK_S
from tools.rehearsing.seen import Scoring, Seen

Status = Literal["PASS", "over budget", "unknown", "no limit"]
TASK_TARGETS = {  # of the task's validation split, by vocabulary
    1024: 62_021_632,
    4096: 45_508_608,
    8192: 40_540_160,
}
CASED_TARGETS = 47_851_520  # of transformed text, by 8,192 pieces
WHOLE_FRAC = 0.98  # of the task's targets: a split that holds so many is the task's


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One of them: what is expected, what is allowed."""

    name: str
    value: float | None
    unit: Literal["s", "bytes"]
    limit: float | None
    status: Status
    how: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the real run has that the rehearsal had not."""

    targets: int  # that its last scoring scores
    of_targets: str  # whose they are
    open_s: float  # the whole data, opened and checked
    code_bytes: int
    planned_bytes: int  # of code and model, before training
    bundle_s: float
    cold: bool  # whether no graph was kept from before
    cold_start_s: float
    warm_start_s: float | None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What of a run's training fits into its time."""

    steps: int
    seconds: float
    by_stage: tuple[tuple[Stage, int], ...]


def fits(recipe: Recipe, step_s: dict[Stage, float], budget_s: float) -> Fit:
    """The steps of each stage when every one takes its seconds; a budget of 0 has no end."""
    schedule = replace(recipe.schedule, budget_s=budget_s)
    elapsed_s, counts = 0.0, dict.fromkeys(stages(recipe), 0)
    for step in range(schedule.steps):
        now = stage(recipe, progress(schedule, step, elapsed_s))
        if budget_s and elapsed_s + step_s[now] > budget_s:
            break
        counts[now] += 1
        elapsed_s += step_s[now]
    return Fit(steps=sum(counts.values()), seconds=elapsed_s, by_stage=tuple(counts.items()))


def task_targets(at_hand: int, vocab_size: int, cased: bool, subset: int | None) -> tuple[int, str]:
    """How many targets the real run scores, and whose: of the data, or of the task's whole split
    where only a part of it is here."""
    if subset is not None:
        return subset, "of the recipe's subset"
    expected = CASED_TARGETS if cased else TASK_TARGETS.get(vocab_size, 0)
    if at_hand >= WHOLE_FRAC * expected:
        return at_hand, "of the validation split"
    return expected, f"of the task's split ({at_hand:,} are here)"


def budgets(recipe: Recipe, seen: Seen, facts: Facts) -> list[Budget]:
    """All of them, in the order of a run."""
    fit = fits(recipe, seen.step_s, recipe.schedule.budget_s)
    rows = [*_starts(seen, facts), _training(recipe, seen, fit), *_scorings(recipe, seen, facts)]
    for phase in ("quantize", "compress"):
        rows.append(_free(phase, seen.phases_s[phase], "outside of both clocks"))
    rows.append(_free("bundle", facts.bundle_s, f"{facts.code_bytes:,} bytes of code"))
    return [*rows, _artifact(seen, facts), _seed(recipe, seen, facts, fit)]


def _starts(seen: Seen, facts: Facts) -> Iterator[Budget]:
    compiled_s = sum(seen.passes_s[0])
    graphs = len(seen.passes_s[0])
    how = f"until the first step; its graphs, {graphs}, took {compiled_s:.1f} s"
    how += "" if facts.cold else "; the cache was not empty: this is no cold start"
    yield _free("cold start", facts.cold_start_s + facts.open_s, how)
    if facts.warm_start_s is None:
        yield Budget(
            name="warm start", value=None, unit="s", limit=None, status="unknown", how="not asked"
        )
    else:
        yield _free("warm start", facts.warm_start_s + facts.open_s, "with the cache as it is now")


def _training(recipe: Recipe, seen: Seen, fit: Fit) -> Budget:
    """Passes over training tokens for the quantizer belong to the time of training (rule L12)."""
    calibrate_s = seen.phases_s.get("calibrate", 0.0)
    value = fit.seconds + calibrate_s
    parts = ", then ".join(
        f"{count:,} of {1000 * seen.step_s[one]:,.1f} ms" for one, count in fit.by_stage
    )
    how = f"{fit.steps:,} steps: {parts}"
    if calibrate_s:
        how += f"; {calibrate_s:.1f} s of them for calibration"
    if value > TASK_S:
        how += f"; schedule.budget_s={max(TASK_S - calibrate_s, 0):.1f} leaves room"
    return _limited("training", value, "s", TASK_S, how)


def _scorings(recipe: Recipe, seen: Seen, facts: Facts) -> Iterator[Budget]:
    """The packed model's: the last one is what the task times."""
    told = f"{facts.targets:,} targets {facts.of_targets}"
    if recipe.score.adapt != "none":
        plain = seen.scorings["quantized"]
        yield _free("scoring, nothing learned", plain.whole_s(facts.targets), told)
    last = seen.scorings["final"]
    value, by = last.whole_s(facts.targets), recipe.score.windows_by
    how = f"{told}, {by.label() or 'chunked'}"
    how += f", adapted by {recipe.score.adapt}" if recipe.score.adapt != "none" else ""
    if last.batch_s is not None or value <= TASK_S or last.targets == facts.targets:
        yield _limited("scoring", value, "s", TASK_S, f"{how}; {_measured(last)}")
        return
    how += f"; {last.batches} batches are too few to tell: at most this"
    yield Budget(name="scoring", value=value, unit="s", limit=TASK_S, status="unknown", how=how)


def _measured(scoring: Scoring) -> str:
    return f"{scoring.targets:,} took {scoring.seconds:.2f} s"


def _artifact(seen: Seen, facts: Facts) -> Budget:
    """Weights of a few steps pack to about what Gaussian ones do; so, mostly, do trained ones."""
    value = facts.code_bytes + seen.model_bytes
    how = f"code and these weights; {facts.planned_bytes:,} are planned for Gaussian ones"
    row = _limited("artifact", value, "bytes", CAP_BYTES, how)
    agree = (value <= CAP_BYTES) == (facts.planned_bytes <= CAP_BYTES)
    return row if agree else replace(row, status="unknown")


def _seed(recipe: Recipe, seen: Seen, facts: Facts, fit: Fit) -> Budget:
    """From one start to the last line, with the scores before packing and of what learns nothing.

    Scores on the way and checkpoints are not in it.
    """
    start_s = facts.cold_start_s if facts.warm_start_s is None else facts.warm_start_s
    scored_s = sum(one.whole_s(facts.targets) for one in seen.scorings.values())
    others = ("calibrate", "quantize", "compress")
    value = start_s + facts.open_s + fit.seconds + scored_s
    value += sum(seen.phases_s.get(phase, 0.0) for phase in others)
    return _free("one seed", value, f"all of it, {len(seen.scorings)} scorings among them")


def _limited(
    name: str, value: float, unit: Literal["s", "bytes"], limit: float, how: str
) -> Budget:
    status: Status = "PASS" if value <= limit else "over budget"
    return Budget(name=name, value=value, unit=unit, limit=limit, status=status, how=how)


def _free(name: str, value: float, how: str) -> Budget:
    return Budget(name=name, value=value, unit="s", limit=None, status="no limit", how=how)


def stage_fields(recipe: Recipe, seen: Seen, fit: Fit) -> list[dict[str, Any]]:
    """The stages as data: what runs, how long its step takes, how many of them fit."""
    return [
        {
            "phase": one.phase,
            "batch_phase": one.batch_phase,
            "qat": one.qat,
            "step_ms": 1000.0 * seen.step_s[one],
            "rehearsed_steps": seen.steps[one],
            "steps": count,
            "compile_s": seen.passes_s[0][index],
        }
        for index, (one, count) in enumerate(fit.by_stage)
    ]
