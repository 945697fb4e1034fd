"""Times an external training script, unmodified, against this project on the same shards.

Both run in processes of their own, in turn, from the same variables of the reference scripts, which
say sizes, rates and data; precision and averages are what each script does by itself. Both tell
their steps in the reference's log lines: a step's time is the slope of train_time over later steps.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.train.recipe import Recipe
from tools.environment import DIRECT
from tools.say import UsageError, note
from tools.strangers.isolated import Limits, Outcome, run_isolated
from tools.strangers.logs import read_text

ROOT = Path(__file__).resolve().parents[1]
SKIPPED_FRAC = 1 / 3  # of the steps, at the beginning: caches and kernels still warm up
ENTRY = {"torch": ROOT / "train_torch.py", "mlx": ROOT / "train_mlx.py"}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run of one script."""

    step_ms: float
    train_loss: float  # of the last step
    isolation: str


def against(
    script: Path, recipe: Recipe, backend: str, rounds: int, seconds: float
) -> dict[str, Any]:
    """Medians of each script's step over the rounds, and of their ratios."""
    if not script.is_file():
        raise UsageError(f"--against {script}: no such file")
    environ = as_variables(recipe)
    theirs: list[Timed] = []
    ours: list[Timed] = []
    for turn in range(rounds):
        pair = ((script, theirs), (ENTRY[backend], ours))
        for path, found in pair if turn % 2 == 0 else pair[::-1]:
            found.append(timed(path, environ, seconds))
            note(f"round {turn + 1} of {rounds}: {path.name} {found[-1].step_ms:.1f} ms a step")
    return {
        "script": str(script),
        "backend": backend,
        "recipe": recipe.name,
        "train_batch_tokens": recipe.data.train_batch_tokens,
        "steps": recipe.schedule.steps,
        "rounds": rounds,
        "script_ms": _median(theirs),
        "step_ms": _median(ours),
        "ratio": statistics.median(
            a.step_ms / b.step_ms for a, b in zip(theirs, ours, strict=True)
        ),
        "script_train_loss": theirs[-1].train_loss,
        "train_loss": ours[-1].train_loss,
        "isolation": theirs[-1].isolation,
        "variables": environ,
    }


def timed(script: Path, environ: dict[str, str], seconds: float) -> Timed:
    """Run a script in an empty folder and read its steps."""
    with tempfile.TemporaryDirectory() as folder:
        outer = {"PYTHONPATH": str(ROOT)} if script.parent == ROOT else {}
        command = [sys.executable, str(script.resolve())]
        done = run_isolated(command, Path(folder), environ | outer, Limits(seconds=seconds))
        log = read_text(done.output, script.name)
    steps = [
        (line.step, line.train_time_ms, line.train_loss)
        for line in log.steps
        if line.train_time_ms is not None
    ]
    if done.code != 0 or len(steps) < 3:
        raise ValueError(f"{script}: {why(done, len(steps), seconds)}")
    first = next((s for s in steps if s[0] >= SKIPPED_FRAC * steps[-1][0]), steps[0])
    last = steps[-1]
    return Timed(
        step_ms=(last[1] - first[1]) / (last[0] - first[0]),
        train_loss=last[2],
        isolation=done.isolation,
    )


def why(done: Outcome, steps: int, seconds: float) -> str:
    """What went wrong with a run, in a sentence."""
    if done.timed_out:
        return f"not done in {seconds:.0f} s (--seconds gives it more)"
    tail = " | ".join(done.output.strip().splitlines()[-3:])[-400:]
    return f"exit code {done.code}, {steps} step lines of at least 3 in its log; it ended: {tail}"


def as_variables(recipe: Recipe) -> dict[str, str]:
    """The recipe as the reference scripts' variables; ValueError for what they cannot say."""
    arch, schedule = recipe.arch, recipe.schedule
    if arch.mlp_dim % arch.model_dim:
        raise ValueError(
            f"arch.mlp_dim {arch.mlp_dim} is no multiple of arch.model_dim {arch.model_dim}, and "
            "MLP_MULT of the reference scripts is a whole number"
        )
    every = max(1, schedule.steps // 10)
    fixed = {
        "MLP_MULT": arch.mlp_dim // arch.model_dim,
        "TIED_EMBED_LR" if arch.tie_embeddings else "EMBED_LR": recipe.optim.embed_lr,
        "MAX_WALLCLOCK_SECONDS": 0,
        "WARMUP_STEPS": schedule.warmup_steps,
        "WARMDOWN_ITERS": 0,
        "VAL_LOSS_EVERY": 0,
        "TRAIN_LOG_EVERY": every,
        "VAL_BATCH_SIZE": recipe.score.batch * arch.seq_len,
        "RUN_ID": "against",
    }
    direct = {row.name: _said(_field(recipe, row.reaches)) for row in DIRECT}
    paths = {name: str(Path(direct[name]).resolve()) for name in ("DATA_PATH", "TOKENIZER_PATH")}
    return {**direct, **paths, **{name: _said(value) for name, value in fixed.items()}}


def backend_of(script: Path) -> str:
    """The engine that a script imports, by its text."""
    text = script.read_text(encoding="utf-8", errors="replace") if script.is_file() else ""
    return "mlx" if re.search(r"^\s*(import|from) mlx\b", text, re.M) else "torch"


def table(fields: dict[str, Any]) -> str:
    """A row of markdown with its head, and what held the script."""
    cells = {
        "script": Path(fields["script"]).name,
        "engine": fields["backend"],
        "tokens a step": f"{fields['train_batch_tokens']:,}",
        "script ms": f"{fields['script_ms']:.1f}",
        "this project ms": f"{fields['step_ms']:.1f}",
        "ratio": f"{fields['ratio']:.2f}",
        "train_loss, script": f"{fields['script_train_loss']:.4f}",
        "this project": f"{fields['train_loss']:.4f}",
    }
    lines = ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
    return "\n".join([*lines, "| " + " | ".join(cells.values()) + " |", "", fields["isolation"]])


def _median(runs: Sequence[Timed]) -> float:
    return statistics.median(run.step_ms for run in runs)


def _field(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _said(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
