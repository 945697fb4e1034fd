"""Checkpoints on a command line: when one is made, how a run goes on, what a signal does."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from core.train.keeper import Keeper, Stopped
from core.train.recipe import Recipe
from core.train.run_folder import RunFolder, load_state
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


def unfinished(runs: Path, stem: str) -> str | None:
    """The newest run of this name that has a recipe but no artifact yet."""
    found = [path for path in (runs / stem, *runs.glob(f"{stem}-*")) if _is_unfinished(path)]
    return max(found, key=lambda path: path.stat().st_mtime).name if found else None


def _is_unfinished(path: Path) -> bool:
    return (path / "recipe.json").is_file() and not (path / "model.bin").exists()


def keeper_of(args: argparse.Namespace, folder: RunFolder, recipe: Recipe) -> Keeper:
    """The run's keeper; with --resume it holds the checkpoint, if there is one."""
    return Keeper(
        folder,
        time.perf_counter,
        every_steps=args.checkpoint_steps,
        every_s=args.checkpoint_seconds,
        snapshot=load_state(folder.path, recipe.arch) if args.resume else None,
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
    if folder.state_path.exists():
        note(
            f"stopped by {stopped or 'another rank'}; the state is in {folder.state_path}. "
            f"Go on with --resume auto --run-id {folder.path.name}"
        )
    return EXIT_CODES.get(str(stopped), 1)
