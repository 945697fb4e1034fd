"""One process of a rehearsal: the project's own run, every event written down with its time.

A launcher starts it, on every rank. Between two events the run asks its keeper behind each step and
each batch of a scoring whether to stop: these beats are written down too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.train.events import log_line
from core.train.keeper import Keeper, Stopped
from core.train.recipe import Recipe
from core.train.run_folder import RunFolder
from tools.backends import BACKENDS, load
from tools.environment import leave
from tools.recipes import read_recipe


class Metronome(Keeper):
    """Keeps nothing, and notes when it was asked."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(None, now)
        self.beats_s: list[float] = []
        self._clock = now

    def stops(self) -> bool:
        self.beats_s.append(self._clock())
        return super().stops()


class Witness:
    """Sends each event to the run folder and to stdout; the rank that leads has one."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        metronome: Metronome,
        solo: Callable[[], Any],
        start_only: bool,
    ) -> None:
        self.recipe, self.folder, self.metronome = recipe, folder, metronome
        self.solo, self.start_only = solo, start_only

    def __call__(self, kind: str, **fields: Any) -> None:
        if kind == "start":
            self.folder.create(self.recipe)
            fields["device_name"] = self.solo().device_name()
        if kind == "phases":
            fields["peak_bytes"] = self.solo().peak_bytes()
        if kind == "warmup" and self.start_only:
            self.metronome.asked_to_stop = "the end of its start"
        beats_s, self.metronome.beats_s = self.metronome.beats_s, []
        self.folder.log(kind, **fields, at_s=time.time(), beats_s=beats_s)
        line = log_line(kind, fields)
        if line is not None:
            print(line, flush=True)


def run(args: argparse.Namespace) -> int:
    recipe = read_recipe([args.recipe], "")
    folder = RunFolder(args.folder.parent, args.folder.name)
    metronome = Metronome(time.perf_counter)
    solo = load(args.backend, "distributed").Solo
    witness = Witness(recipe, folder, metronome, solo, args.start_only)
    train = load(args.backend, "loop").train
    try:
        finished = train(recipe, args.code_bytes, time.perf_counter, witness, metronome)
    except Stopped:
        return 0
    if finished is not None:
        folder.save_model(finished.model)
    return 0


def main() -> int:
    from tools.main import guarded

    parser = argparse.ArgumentParser(prog="golf rehearse", description=__doc__)
    parser.add_argument("recipe", help="a recipe.json")
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the run, not there yet")
    parser.add_argument("--code-bytes", type=int, required=True)
    parser.add_argument("--start-only", action="store_true", help="stop before the first step")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)
    return guarded(parser, None)


if __name__ == "__main__":
    leave(main())
