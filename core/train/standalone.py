"""A run with core and one engine alone: what the single-file bundle of a submission does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from core.train.events import log_line
from core.train.finish import Finished
from core.train.keeper import Keeper
from core.train.recipe import Recipe
from core.train.run_folder import RunFolder

Train = Callable[..., Finished | None]  # train(recipe, code_bytes, now, events, keeper)


def standalone(train: Train, recipe: Recipe, run_id: str, code_bytes: int) -> int:
    """Train, pack and score: lines on stdout, files in runs/<run_id>/. The exit code."""
    folder = RunFolder("runs", run_id)

    def events(kind: str, **fields: Any) -> None:
        if kind == "start":
            folder.create(recipe)
        folder.log(kind, **fields)
        line = log_line(kind, fields)
        if line is not None:
            print(line, flush=True)

    now = time.perf_counter
    finished = train(recipe, code_bytes, now, events, Keeper(None, now))
    if finished is None:
        return 0
    folder.save_model(finished.model)
    return 0 if finished.ledger.fits else 1
