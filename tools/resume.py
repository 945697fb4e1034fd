"""Checkpoints on a command line: when one is made, how a run goes on, what a signal does."""

from __future__ import annotations

import argparse
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from core.train.keeper import Keeper, Stopped
from core.train.recipe import Recipe
from core.train.run_folder import RunFolder, load_recipe, load_state, training_hash
from tools.environment import leads, variables
from tools.say import note

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint-steps", type=int, default=0, metavar="N", help="save the state every N steps"
    )
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=0.0, metavar="T", help="and every T seconds"
    )
    parser.add_argument(
        "--resume",
        choices=("auto",),
        help="auto: go on with the unfinished run of this recipe (or --run-id), else begin one",
    )


def unfinished(runs: Path, stem: str, recipe: Recipe | None = None) -> str | None:
    """The newest run of this name, numbered or not, that has a recipe but no artifact yet.

    With `recipe`, where nobody named the run: also one that was named by itself, of the same
    training, on either engine.
    """
    paths = runs.iterdir() if runs.is_dir() else ()
    found = [
        path
        for path in paths
        if _is_unfinished(path) and (_is_named(path, stem) or (recipe and _trains(path, recipe)))
    ]
    return max(found, key=lambda path: path.stat().st_mtime).name if found else None


def _is_unfinished(path: Path) -> bool:
    return (path / "recipe.json").is_file() and not (path / "model.bin").exists()


def _is_named(path: Path, stem: str) -> bool:
    return re.fullmatch(rf"{re.escape(stem)}(-\d+)?", path.name) is not None


def _trains(path: Path, recipe: Recipe) -> bool:
    """Whether this run was named by itself and trains what the recipe does."""
    own = rf"{re.escape(recipe.name)}-[0-9a-f]{{8}}-(torch|mlx)(-\d+)?"
    if not re.fullmatch(own, path.name):
        return False
    try:
        return training_hash(load_recipe(path)) == training_hash(recipe)
    except ValueError:  # not a recipe that this version reads
        return False


def keeper_of(args: argparse.Namespace, folder: RunFolder, recipe: Recipe) -> Keeper:
    """The run's keeper; with --resume it holds the checkpoint, if there is one."""
    snapshot = load_state(folder.path, recipe.arch) if args.resume else None
    goes_on = bool(args.resume) and folder.recipe_path.is_file()
    if goes_on and snapshot is None and leads(variables()):
        note(f"{folder.path} has no checkpoint: it begins again at step 0, and its log goes on")
    return Keeper(
        folder,
        time.perf_counter,
        every_steps=args.checkpoint_steps,
        every_s=args.checkpoint_seconds,
        snapshot=snapshot,
        goes_on=goes_on,
        resumes=bool(args.resume),
    )


@contextmanager
def stopping_on_signals(keeper: Keeper) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C end the run behind its step, saved; the second ends it now."""

    def ask(number: int, frame: FrameType | None) -> None:
        if keeper.asked_to_stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        keeper.asked_to_stop = signal.Signals(number).name

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_stopped(stopped: Stopped, folder: RunFolder) -> int:
    """What was kept and how to go on; the exit code of the signal."""
    if folder.state_path.exists() and leads(variables()):
        note(
            f"stopped by {stopped or 'another rank'}; the state is in {folder.state_path}. "
            f"Go on with --resume auto --run-id {folder.path.name}"
        )
    return EXIT_CODES.get(str(stopped), 1)
