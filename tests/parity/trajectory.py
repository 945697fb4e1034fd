"""Trains one recipe on real shards with torch, MLX and float64, and scores all three.

python -m tests.parity.trajectory recipe [section.field=value ...] prints the losses and distances.
"""

from __future__ import annotations

import sys

from core.score.scoring import score
from core.train.corpus import Corpus, open_corpus
from core.train.recipe import Recipe
from core.train.schedules import knobs
from tests.parity.engines import ENGINES, Run, distance, started
from tools.recipes import read_recipe

LOSS_GAP = 5e-5  # nats of final val_loss between the engines
CONTROL = 10.0
FLOAT64 = "float64"


def final(recipe: Recipe, name: str, corpus: Corpus) -> tuple[float, Run]:
    """val_loss after all steps of the recipe, and the run."""
    with started(recipe, name) as run:
        feeder = run.feeder(corpus.train)
        for step in range(recipe.schedule.steps):
            run.trainer.step(feeder.batch(step), knobs(recipe, step, 0.0))
        settings, seq_len = recipe.score, recipe.arch.seq_len
        return score(run.nats, corpus.validation, seq_len, settings.batch).val_loss, run


def compare(recipe: Recipe) -> dict[str, float]:
    """Final losses, and distances of losses and weights: engines apart and control."""
    corpus = open_corpus(recipe)
    done = {name: final(recipe, name, corpus) for name in (*ENGINES, FLOAT64)}
    loss = {name: pair[0] for name, pair in done.items()}
    weights = {name: pair[1].weights() for name, pair in done.items()}
    return {
        **{f"val_loss {name}": value for name, value in loss.items()},
        "loss: mlx - torch": abs(loss["mlx"] - loss["torch"]),
        "loss: mlx - float64": abs(loss["mlx"] - loss[FLOAT64]),
        "loss: torch - float64": abs(loss["torch"] - loss[FLOAT64]),
        "weights: mlx - torch": distance(weights["mlx"], weights["torch"]),
        "weights: mlx - float64": distance(weights["mlx"], weights[FLOAT64]),
        "weights: torch - float64": distance(weights["torch"], weights[FLOAT64]),
    }


if __name__ == "__main__":
    for label, measured in compare(read_recipe(sys.argv[1:], "smoke")).items():
        print(f"{label:<26}{measured:.8f}" if "val" in label else f"{label:<26}{measured:.1e}")
