"""Host time of a batch: the feeder against a loader that reads row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.data.shards import TokenStream
from core.train.recipe import Recipe
from tools.backends import load
from tools.benching.blocks import Launch, in_turns
from tools.benching.job import Job
from tools.benching.kernels import against
from tools.benching.tokens import random_shards

FEEDER, BY_ROWS = "feeder", "row by row"


def measure(job: Job) -> dict[str, Any]:
    """Of the recipe's batches, ready on the device; row by row: as int64, and not copied there."""
    recipe, backend = job.recipe(), job.row.backend
    group = load(backend, "distributed").Solo()
    with random_shards(recipe) as stream:
        feeder = load(backend, "feeder").Feeder(stream, recipe, group)
        forms: dict[str, Launch] = {FEEDER: _fed(feeder, recipe), BY_ROWS: _rows(stream, recipe)}
        turns = in_turns(forms, _settled(load(backend, "yardsticks").settle), job.rules)
    return {
        "recipe": recipe.name,
        "train_batch_tokens": recipe.data.train_batch_tokens,
        "tokens_per_s": recipe.data.train_batch_tokens / turns.step_s(FEEDER).median,
        **against(turns, FEEDER, {}),
    }


def _fed(feeder: Any, recipe: Recipe) -> Launch:
    count = iter(range(1 << 30))

    def launch() -> Any:
        batches = feeder.batch_at(next(count) * recipe.data.train_batch_tokens)
        return [part for batch in batches for part in batch if part is not None]

    return launch


def _rows(stream: TokenStream, recipe: Recipe) -> Launch:
    """Two copies of each row, one place apart."""
    seq_len, rows = recipe.arch.seq_len, recipe.data.train_batch_tokens // recipe.arch.seq_len

    def launch() -> None:
        x = np.stack([stream.slice(r * seq_len, (r + 1) * seq_len) for r in range(rows)])
        y = np.stack([stream.slice(r * seq_len + 1, (r + 1) * seq_len + 1) for r in range(rows)])
        x.astype(np.int64), y.astype(np.int64)

    return launch


def _settled(settle: Any) -> Any:
    """Waits for what is on a device; arrays of the host are there."""
    return lambda launched: None if launched is None else settle(launched)


def cells(fields: dict[str, Any]) -> dict[str, str]:
    counts = "" if fields["counts"][BY_ROWS] else ", within noise"
    return {
        "recipe": fields["recipe"],
        "tokens a batch": f"{fields['train_batch_tokens']:,}",
        "host ms": f"{fields['form_ms'][FEEDER]:.3f}",
        "row by row ms": f"{fields['form_ms'][BY_ROWS]:.3f}",
        "ratio": f"{fields['ratios'][BY_ROWS]:.2f}{counts}",
        "A to A": f"±{fields['noise']:.1%}",
    }
