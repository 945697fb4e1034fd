"""What follows training: score, quantize, compress, score the packed bytes, count them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.arch.params import Weights
from core.artifact.container import Artifact, weights_in, write
from core.artifact.ledger import Ledger, ledger
from core.artifact.quant import quantize
from core.score.bpb import Scored
from core.score.scoring import Validation
from core.train.clock import BudgetClock
from core.train.events import (
    Events,
    log_artifact,
    log_note,
    log_phases,
    log_scored,
    log_verdict,
    method,
)
from core.train.keeper import Ask
from core.train.recipe import Recipe

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
    validation: Validation,
    score_of: ScoreOf,
    code_bytes: int,
    clock: BudgetClock,
    events: Events,
    ask: Ask,
) -> Finished:
    """Score `weights`, pack them, read the bytes back and score those: the run's last lines.

    Where the recipe adapts to what is scored, it is the packed model that does, and its score
    without is told too. `ask` is called between the batches of a scoring, and ends all of it by an
    exception.
    """

    def scored(label: str, subject: Weights, validation: Validation) -> Scored:
        start_s = clock.seconds("score")
        with clock.phase("score"):
            result = score_of(subject, validation, ask)
        log_scored(events, label, result, validation, clock.seconds("score") - start_s)
        return result

    for said in unmet(recipe):
        log_note(events, said)
    before = scored("pre_quantization", weights, validation.plain())
    artifact, model = pack(weights, recipe, clock)
    counts = ledger(model, code_bytes)
    log_artifact(events, recipe, artifact, counts)
    packed = weights_in(model, recipe.arch)
    if recipe.score.adapt != "none":
        scored("quantized", packed, validation.plain())
    after = scored(f"final_{method(recipe, '_')}_roundtrip_exact", packed, validation)
    log_phases(events, clock.phases())
    log_verdict(events, counts)
    return Finished(
        weights=weights,
        model=model,
        before=before,
        after=after,
        ledger=counts,
        phases_s=clock.phases(),
    )


def unmet(recipe: Recipe) -> list[str]:
    """What its quantizer is told to do and runs cannot do yet, and what they do."""
    quant, found = recipe.quant, list[str]()
    if quant.solver != "nearest":
        found.append(f"quant.solver {quant.solver} is not in runs yet: packed to the nearest level")
    if quant.lqer_rank:
        found.append(f"quant.lqer_rank {quant.lqer_rank} is not in runs yet: packed without it")
    return found


def look(
    recipe: Recipe,
    score: Callable[[Ask], Scored],
    packs: Callable[[], Weights],
    code_bytes: int,
    ask: Ask,
) -> tuple[Scored, Ledger | None]:
    """A score on the way, and what code and weights would be in bytes if this were the end.

    None where such weights cannot be packed: a run is not ended for that before its end.
    """
    scored = score(ask)
    try:
        model = write(_artifact(packs(), recipe), recipe.quant.codec)
    except ValueError:
        return scored, None
    return scored, ledger(model, code_bytes)


def pack(weights: Weights, recipe: Recipe, clock: BudgetClock) -> tuple[Artifact, bytes]:
    """Quantize by the recipe and write the artifact."""
    with clock.phase("quantize"):
        artifact = _artifact(weights, recipe)
    with clock.phase("compress"):
        return artifact, write(artifact, recipe.quant.codec)


def _artifact(weights: Weights, recipe: Recipe) -> Artifact:
    return Artifact(recipe.arch, tuple(quantize(weights, recipe.arch, recipe.quant)))
