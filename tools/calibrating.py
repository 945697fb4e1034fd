"""Measures what a run's matrices are multiplied with, as the run does, and keeps it beside them."""

from __future__ import annotations

from pathlib import Path

from core.arch.params import Weights
from core.artifact.solving import Calibration
from core.data.shards import open_split
from core.train.recipe import Recipe
from core.train.run_folder import kept_hessians, save_hessians
from tools.backends import load
from tools.say import note
from tools.tensors import calibration_arrays, read_calibration


def measured(recipe: Recipe, weights: Weights, backend: str) -> Calibration:
    """By the engine, on the tokens of the first steps of training."""
    stream = open_split(Path(recipe.data.path), "train")
    group = load(backend, "distributed").open_group()
    try:
        trainer = load(backend, "loop").Trainer(recipe, group)
        feeder = load(backend, "feeder").Feeder(stream, recipe, group)
        found: Calibration = trainer.calibration(weights, feeder, stream)
    finally:
        group.close()
    return found


def measured_and_kept(folder: Path, recipe: Recipe, weights: Weights, backend: str) -> Calibration:
    """The same, written into the run's folder: later commands read it there."""
    found = measured(recipe, weights, backend)
    path = save_hessians(folder, calibration_arrays(found))
    note(f"measured {len(found.hessians)} matrices' inputs with {backend}; kept in {path}")
    return found


def known_of(folder: Path, hessians: Path | None) -> Calibration:
    """Of a file that is named; else what the run's folder keeps of these weights; else nothing."""
    kept = None if hessians else kept_hessians(folder)
    if kept:
        note(f"Hessians of {kept}")
    return read_calibration(hessians or kept)
