"""Train a recipe, pack it and score the packed file; everything lands in runs/<run_id>/."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.artifact.ledger import unbundled_code_bytes
from core.train.finish import Finished
from core.train.recipe import Recipe, recipe_hash
from core.train.run_folder import RunFolder
from tools.backends import add_backend, choose, load
from tools.plan import planned_artifact_bytes
from tools.recipes import add_recipe, read_recipe
from tools.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = {"torch": "baseline", "mlx": "small"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, DEFAULTS["torch"])
    add_backend(parser)
    add_places(parser)
    parser.set_defaults(run=run)


def add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--run-id", help="name of this run (default: recipe, hash and engine)")


def run(args: argparse.Namespace) -> int:
    recipe = read_recipe(args.words, args.default_recipe)
    backend = choose(args.backend)
    stem = f"{recipe.name}-{recipe_hash(recipe)[:8]}-{backend}"
    run_id = args.run_id or free_run_id(Path(args.runs), stem)
    finished = train(recipe, backend, RunFolder(args.runs, run_id))
    return 0 if finished is None or finished.ledger.fits else 1


def train(recipe: Recipe, backend: str, folder: RunFolder, quiet: bool = False) -> Finished | None:
    """The whole run; None on a rank that does not write."""
    code_bytes = unbundled_code_bytes(ROOT)
    with Terminal(recipe, planned_artifact_bytes(recipe, code_bytes), quiet) as terminal:
        journal = Journal(recipe, folder, terminal)
        finished: Finished | None = load(backend, "loop").train(
            recipe, code_bytes, time.perf_counter, journal
        )
    if finished is not None:
        folder.save_weights(finished.weights)
        folder.save_model(finished.model)
    return finished


class Journal:
    """Sends each event to the run folder and to the terminal; the first one makes the folder."""

    def __init__(self, recipe: Recipe, folder: RunFolder, terminal: Callable[..., None]) -> None:
        self.recipe = recipe
        self.folder = folder
        self.terminal = terminal

    def __call__(self, kind: str, **fields: Any) -> None:
        if kind == "start":
            self.folder.create(self.recipe)
        self.folder.log(kind, **fields)
        self.terminal(kind, **fields)


def free_run_id(runs: Path, stem: str) -> str:
    """The stem, numbered from the second run on."""
    names = [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]
    return next(name for name in names if not (runs / name).exists())


def script(backend: str) -> int:
    """What train_torch.py and train_mlx.py do."""
    from tools.main import guarded

    parser = argparse.ArgumentParser(
        prog=f"train_{backend}.py", description=f"{__doc__} On {backend}."
    )
    add_recipe(parser, DEFAULTS[backend])
    add_places(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run, backend=backend)
    return guarded(parser, None)
