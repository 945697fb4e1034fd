"""Train a recipe, pack it and score the packed file; everything lands in runs/<run_id>/.

The variables of the reference scripts work too (NUM_LAYERS=4 ITERATIONS=200 ...): above the recipe,
below --scale and the words of the command line.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.score.subsets import choose_subset
from core.train.events import log_resolved
from core.train.finish import Finished
from core.train.keeper import Keeper, Stopped
from core.train.recipe import Recipe, recipe_hash
from core.train.run_folder import RunFolder
from tools.backends import add_backend, choose, load
from tools.bundling.script import code_bytes
from tools.costs import hardware_of, planned_artifact_bytes, tokens_per_s
from tools.environment import Change, leads, of_several, variables
from tools.recipes import DEFAULTS, add_recipe, add_size, mac_memory_bytes, settle
from tools.resume import (
    add_checkpoints,
    keeper_of,
    stopping_on_signals,
    tell_stopped,
    unfinished,
)
from tools.say import note
from tools.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, f"with torch {DEFAULTS['torch']}, with MLX {DEFAULTS['mlx']}")
    add_size(parser)
    add_backend(parser)
    add_places(parser)
    add_checkpoints(parser)
    parser.set_defaults(run=run)


def add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", help="folder of runs (default: OUT_DIR, else runs)")
    parser.add_argument(
        "--run-id", help="name of this run (default: RUN_ID, else recipe, hash and engine)"
    )


def run(args: argparse.Namespace) -> int:
    backend, environ = choose(args.backend), variables()
    settled = settle(
        args.words,
        backend,
        environ,
        scale=args.scale,
        full=args.full,
        memory_bytes=mac_memory_bytes(),
    )
    if leads(environ):
        for sentence in settled.notes:
            note(sentence)
    recipe, runs = settled.recipe, Path(args.runs or settled.runs or "runs")
    stem = settled.run_id or f"{recipe.name}-{recipe_hash(recipe)[:8]}-{backend}"
    nameless = None if settled.run_id else recipe
    going_on = args.run_id or (unfinished(runs, stem, nameless) if args.resume else None)
    folder = RunFolder(runs, going_on or free_run_id(runs, stem))
    keeper = keeper_of(args, folder, recipe)
    try:
        with stopping_on_signals(keeper):
            finished = train(
                recipe, backend, folder, base=settled.base, origins=settled.origins, keeper=keeper
            )
    except Stopped as stopped:
        return tell_stopped(stopped, folder)
    except RuntimeError as error:
        if not of_several(environ):
            raise
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the engine failed, or a rank that it waited for is gone: {told}; --debug shows where"
        ) from error
    return 0 if finished is None or finished.ledger.fits else 1


def train(
    recipe: Recipe,
    backend: str,
    folder: RunFolder,
    quiet: bool = False,
    base: Recipe | None = None,
    origins: Sequence[Change] = (),
    keeper: Keeper | None = None,
) -> Finished | None:
    """The whole run; None on a rank that does not write. `origins`: what is not as in `base`."""
    own_bytes = code_bytes(recipe)
    keeper = keeper or Keeper(folder, time.perf_counter)
    with Terminal(recipe, planned_artifact_bytes(recipe, own_bytes), quiet) as terminal:
        journal = Journal(recipe, folder, terminal, base, origins, goes_on=keeper.goes_on)
        finished: Finished | None = load(backend, "loop").train(
            recipe, own_bytes, time.perf_counter, journal, keeper
        )
    if finished is not None:
        folder.save_model(finished.model)
        keeper.forget()
    return finished


class Journal:
    """Sends each event to the run folder and to the terminal; the first one makes the folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        terminal: Callable[..., None],
        base: Recipe | None = None,
        origins: Sequence[Change] = (),
        goes_on: bool = False,
    ) -> None:
        self.goes_on = goes_on
        self.recipe = recipe
        self.folder = folder
        self.base = base or recipe
        self.origins = origins
        self.listeners = (folder.log, terminal, ScoringEta(recipe))

    def __call__(self, kind: str, **fields: Any) -> None:
        if kind == "start":
            (self.folder.reopen if self.goes_on else self.folder.create)(self.recipe)
            for change in self.origins:
                self._send("origin", **change._asdict())
            log_resolved(self._send, self.recipe, self.base)
        self._send(kind, **fields)

    def _send(self, kind: str, **fields: Any) -> None:
        for listener in self.listeners:
            listener(kind, **fields)


class ScoringEta:
    """Says how long scoring will take: before training as planned, then from the first steps.

    A forward pass costs a third of a step's FLOPs; all ranks score, in every validation, and
    before and after packing. What adapts is not in it.
    """

    TOLD_FROM_S = 60.0

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.targets = 0

    def __call__(self, kind: str, **fields: Any) -> None:
        if kind == "start":
            score, tokens = self.recipe.score, fields["val_tokens"]
            window_targets = score.windows_by.window_targets(self.recipe.arch.seq_len)
            subset = choose_subset(score.subset, score.limit_tokens, tokens, window_targets)
            self.targets = tokens - 1 if subset is None else subset.targets
            hardware = hardware_of(fields["device"], fields["world_size"])
            self._tell(tokens_per_s(self.recipe, hardware), "planned, before the first step")
        if kind == "step" and fields["step"] == min(10, fields["steps"]):
            self._tell(fields["tokens_per_s"], "estimated at three times the training's speed")

    def _tell(self, tokens_per_s: float, how: str) -> None:
        seconds, between = self.seconds(tokens_per_s), self.validations(tokens_per_s)
        if seconds >= self.TOLD_FROM_S:
            on_the_way = f"{between} times on the way and " if between else ""
            note(
                f"scoring {self.targets:,} targets {on_the_way}before and after packing will take "
                f"about {seconds / 60:,.0f} min ({how})"
            )

    def validations(self, tokens_per_s: float) -> int:
        """Scorings before the last step: by the number of steps, or of those that fit."""
        schedule, every = self.recipe.schedule, self.recipe.score.val_every_steps
        step_s = self.recipe.data.train_batch_tokens / tokens_per_s
        fit = int(schedule.budget_s / step_s) if schedule.budget_s else schedule.steps
        return max(min(schedule.steps, fit) - 1, 0) // every if every else 0

    def seconds(self, tokens_per_s: float) -> float:
        scorings = 2 + self.validations(tokens_per_s)
        cost = self.recipe.score.windows_by.cost(self.recipe.arch.seq_len)
        return scorings * cost * self.targets / (3 * tokens_per_s)


def free_run_id(runs: Path, stem: str) -> str:
    """The stem, numbered from the second run on."""
    names = [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]
    return next(name for name in names if not (runs / name).exists())


def script(backend: str) -> int:
    """What train_torch.py and train_mlx.py do."""
    from tools.main import guarded

    parser = argparse.ArgumentParser(
        prog=f"train_{backend}.py", description=f"{__doc__}Here on {backend}."
    )
    add_recipe(parser, DEFAULTS[backend])
    add_size(parser)
    add_places(parser)
    add_checkpoints(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run, backend=backend)
    return guarded(parser, None)
