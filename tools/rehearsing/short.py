"""The recipe of a rehearsal: the real shapes, few steps, few targets, and every phase switch."""

from __future__ import annotations

from dataclasses import replace

from core.arch.spec import ModelSpec
from core.data.batches import Data
from core.score.scoring import Score
from core.train.qat import Qat
from core.train.recipe import Optim, Recipe

LEAST_STEPS = 3  # of each stage: behind a switch the first one is not timed
BATCHES = 12  # of a scoring on every rank: the earlier half may compile
DOCUMENT_TOKENS = 1000  # about the mean of the task's text


def rehearsed(recipe: Recipe, steps: int, targets: int, of_targets: int) -> Recipe:
    """The recipe with about so many steps, shared out evenly among its stages, and no budget.

    targets: how many are scored, the first of the of_targets that the real run scores here.
    """
    starts = sorted(switches(recipe))
    at = {start: index / len(starts) for index, start in enumerate(starts)}
    steps = max(steps, LEAST_STEPS * len(starts))
    return replace(
        recipe,
        name=f"{recipe.name}-rehearsal",
        arch=_arch(recipe.arch, at),
        data=_data(recipe.data, at),
        qat=_qat(recipe.qat, at),
        optim=_optim(recipe.optim, steps),
        schedule=replace(
            recipe.schedule,
            steps=steps,
            budget_s=0.0,
            warmup_steps=max(recipe.schedule.warmup_steps, 2),  # one compiles, one is timed
            warmdown=0.5,
            warmdown_unit="frac",
            log_every_steps=max(1, steps // 5),
        ),
        score=_score(recipe.score, steps, targets, of_targets),
    )


def switches(recipe: Recipe) -> set[float]:
    """The progress from which on something else runs; 0 among them."""
    rounds = {recipe.qat.start} if recipe.qat.form != "none" else set()
    orders = {phase.at for phase in recipe.arch.phases}
    return {0.0} | rounds | orders | {phase.at for phase in recipe.data.batch_schedule}


def enough_targets(recipe: Recipe, ranks: int) -> int:
    """Targets whose scoring tells the speed of a long one: some batches on every rank."""
    score = recipe.score
    counts = [ranks * score.batch * score.windows_by.window_targets(recipe.arch.seq_len)]
    if (how := score.adaptation) is not None:
        counts += [how.sgd.chunk_tokens] if how.descends else []
        counts += [how.lora.docs_batch * DOCUMENT_TOKENS] if how.per_document else []
    return BATCHES * max(counts)


def _arch(arch: ModelSpec, at: dict[float, float]) -> ModelSpec:
    return replace(arch, phases=tuple(replace(p, at=at[p.at]) for p in arch.phases))


def _data(data: Data, at: dict[float, float]) -> Data:
    phases = tuple(replace(p, at=at[p.at]) for p in data.batch_schedule)
    return replace(data, batch_schedule=phases)


def _qat(qat: Qat, at: dict[float, float]) -> Qat:
    return replace(qat, start=at.get(qat.start, qat.start))


def _optim(optim: Optim, steps: int) -> Optim:
    """Snapshots that are averaged come on the way here too."""
    return replace(optim, swa_every_steps=min(optim.swa_every_steps, steps // 5))


def _score(score: Score, steps: int, targets: int, of_targets: int) -> Score:
    """One look on the way where the run has any; a whole model learns from the same part of the
    documents as in the real scoring, so that its seconds grow with the targets."""
    every = steps // 2 if score.val_every_steps else 0
    if targets >= of_targets:
        return replace(score, val_every_steps=every)
    docs = max(1, round(score.phased.prefix_docs * targets / of_targets))
    return replace(
        score,
        val_every_steps=every,
        subset="full",
        limit_tokens=targets,
        phased=replace(score.phased, prefix_docs=docs),
    )
