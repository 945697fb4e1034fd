"""What follows training: score, quantize, compress, score the packed bytes, count them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.arch.params import Weights
from core.artifact.container import Artifact, weights_in, write
from core.artifact.ledger import Ledger, ledger
from core.artifact.quant import quantize
from core.artifact.solving import NOTHING, Calibration, solve, solver_name
from core.artifact.sums import REFERENCE, Solver
from core.score.bpb import Scored
from core.score.scoring import Validation
from core.train.clock import BudgetClock
from core.train.events import (
    Events,
    log_artifact,
    log_phases,
    log_scored,
    log_verdict,
    method,
)
from core.train.keeper import Ask, Lead
from core.train.recipe import Recipe
from core.train.schedules import steered

ScoreOf = Callable[[Weights, Validation, Ask], Scored]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of a run."""

    weights: Weights  # averaged, before packing
    model: bytes  # the artifact
    before: Scored
    after: Scored  # of the weights read back from the artifact's bytes
    ledger: Ledger
    phases_s: dict[str, float]


def finish(
    recipe: Recipe,
    weights: Weights,
    known: Calibration,
    validation: Validation,
    score_of: ScoreOf,
    code_bytes: int,
    clock: BudgetClock,
    events: Events,
    lead: Lead,
    solver: Solver = REFERENCE,
) -> Finished | None:
    """Score `weights`, pack them, read the bytes back and score those: the run's last lines.

    All ranks score; the first packs, and has the result. Where the recipe adapts to what is
    scored, it is the packed model that does, and its score without is told too. Between the
    batches of a scoring the ranks agree whether to stop, which ends all of it.
    """

    def scored(label: str, subject: Weights, validation: Validation) -> Scored:
        start_s = clock.seconds("score")
        with clock.phase("score"):
            result = score_of(subject, validation, lead.ask)
        log_scored(events, label, result, validation, clock.seconds("score") - start_s)
        return result

    def packing(ask: Ask) -> bytes:
        artifact, model = pack(weights, recipe, clock, known, solver)
        log_artifact(events, recipe, artifact, ledger(model, code_bytes))
        return model

    before = scored("pre_quantization", weights, validation.plain())
    model = lead.share(lead.alone(packing))
    packed = weights_in(model, recipe.arch)
    if recipe.score.adapt != "none":
        scored("quantized", packed, validation.plain())
    after = scored(f"final_{method(recipe, '_')}_roundtrip_exact", packed, validation)
    counts = ledger(model, code_bytes)
    log_phases(events, clock.phases())
    log_verdict(events, counts)
    if not lead.first:
        return None
    return Finished(
        weights=weights,
        model=model,
        before=before,
        after=after,
        ledger=counts,
        phases_s=clock.phases(),
    )


def look(
    recipe: Recipe,
    score: Callable[[Ask], Scored],
    packs: Callable[[], Weights],
    code_bytes: int,
    lead: Lead,
) -> tuple[Scored, Ledger | None]:
    """A score on the way, and what code and weights would be in bytes if this were the end.

    None where such weights cannot be packed: a run is not ended for that before its end; and on
    all ranks but the first. Levels are the nearest ones, whatever the solver of the end is.
    """

    weights = packs()  # of all ranks: each may have a part of them

    def counts(ask: Ask) -> Ledger | None:
        try:
            artifact = Artifact(recipe.arch, tuple(quantize(weights, recipe.arch, recipe.quant)))
            model = write(artifact, recipe.quant.codec)
        except ValueError:
            return None
        return ledger(model, code_bytes)

    return score(lead.ask), lead.alone(counts)


def steer(recipe: Recipe, wd_steer: float, counts: Ledger | None, lead: Lead) -> float:
    """The multiplier of the decays behind a look, on every rank."""
    if not recipe.optim.wd_target_bytes:
        return wd_steer
    told = lead.share(str(0 if counts is None else counts.artifact_bytes).encode())
    return steered(recipe.optim, wd_steer, int(told))


def pack(
    weights: Weights,
    recipe: Recipe,
    clock: BudgetClock,
    known: Calibration = NOTHING,
    solver: Solver = REFERENCE,
) -> tuple[Artifact, bytes]:
    """Quantize by the recipe and write the artifact."""
    quant = recipe.quant
    with clock.phase("quantize"):
        if quant.solver == "gptq" or quant.lqer_rank:
            tensors = solve(weights, recipe.arch, quant, known, solver)
            artifact = Artifact(recipe.arch, tuple(tensors), solver_name(quant))
        else:
            artifact = Artifact(recipe.arch, tuple(quantize(weights, recipe.arch, quant)))
    with clock.phase("compress"):
        return artifact, write(artifact, quant.codec)
