"""Times an external training script, unmodified, against this project on the same shards.

Both run in processes of their own, in turn, from the same variables of the reference scripts, which
say sizes, rates and data; averages, and the other's precision, are what each script does by itself.
This one's precision, and whether it is compiled, are the recipe's. Both tell their steps in the
reference's log lines: a step's time is the slope of train_time over later steps. The reference
form, which stands in for such a script, is timed beside them in this process.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.shards import open_split
from core.train.recipe import Recipe
from core.train.schedules import PLAIN
from tools.backends import load
from tools.benching.blocks import Clock, Rules, block
from tools.benching.hardware import told
from tools.benching.steps import Stepping
from tools.benching.steps import settle as settle_step
from tools.environment import DIRECT
from tools.recipes import settle
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
    script: Path,
    recipe: Recipe,
    backend: str,
    rounds: int,
    seconds: float,
    now: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Medians of each script's step over the rounds, and of their ratios.

    now: what the reference form is timed by. This project's log is of the wall clock: where a
    script's is not, `now` is not either, and only the reference form stands beside the script.
    """
    if not script.is_file():
        raise UsageError(f"--against {script}: no such file")
    environ = as_variables(recipe)
    words = (f"precision={recipe.precision}", f"compile={recipe.compile}")
    reference_ms = in_reference_form(backend, settle(words, backend, environ).recipe, now)
    theirs: list[Timed] = []
    ours: list[Timed] = []
    references: list[float] = []
    for turn in range(rounds):
        pair: list[tuple[Path, tuple[str, ...], list[Timed]]] = [(script, (), theirs)]
        pair += [(ENTRY[backend], words, ours)] if now is time.perf_counter else []
        for path, more, found in pair if turn % 2 == 0 else pair[::-1]:
            found.append(timed(path, more, environ, seconds))
            note(f"round {turn + 1} of {rounds}: {path.name} {found[-1].step_ms:.1f} ms a step")
        references.append(reference_ms())
        note(f"round {turn + 1} of {rounds}: reference form {references[-1]:.1f} ms a step")
    scripts_ms, own_ms = [one.step_ms for one in theirs], [one.step_ms for one in ours]
    return {
        "script": str(script),
        "backend": backend,
        "recipe": recipe.name,
        "precision": recipe.precision,
        "compile": recipe.compile,
        "train_batch_tokens": recipe.data.train_batch_tokens,
        "steps": recipe.schedule.steps,
        "rounds": rounds,
        "script_ms": statistics.median(scripts_ms),
        "step_ms": statistics.median(own_ms) if own_ms else None,
        "reference_form_ms": statistics.median(references),
        **_ratios("ratio", scripts_ms, own_ms),
        **_ratios("ratio_to_reference_form", scripts_ms, references),
        "script_train_loss": theirs[-1].train_loss,
        "train_loss": ours[-1].train_loss if ours else None,
        "isolation": theirs[-1].isolation,
        "variables": environ,
    }


def in_reference_form(backend: str, recipe: Recipe, now: Clock) -> Callable[[], float]:
    """A block of steps of the reference form on the recipe's shards, in ms a step, when called."""
    group, stream = load(backend, "distributed").Solo(), open_split(Path(recipe.data.path), "train")
    trainer = load(backend, "reference").ReferenceTrainer(recipe, group)
    form = Stepping(trainer, load(backend, "feeder").Feeder(stream, recipe, group), PLAIN)
    steps = recipe.schedule.steps
    rules = Rules(steps=max(1, steps - round(SKIPPED_FRAC * steps)), now=now)
    settle_step(form())
    return lambda: 1000 * block(form, settle_step, rules)


def timed(script: Path, words: Sequence[str], environ: dict[str, str], seconds: float) -> Timed:
    """Run a script in an empty folder and read its steps."""
    with tempfile.TemporaryDirectory() as folder:
        outer = {"PYTHONPATH": str(ROOT)} if script.parent == ROOT else {}
        command = [sys.executable, str(script.resolve()), *words]
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
        "reference form ms": f"{fields['reference_form_ms']:.1f}",
        "this project ms": _number(fields["step_ms"], 1),
        "script to reference form": _shown(fields, "ratio_to_reference_form"),
        "script to this project": _shown(fields, "ratio"),
        "train_loss, script": f"{fields['script_train_loss']:.4f}",
        "this project": _number(fields["train_loss"], 4),
    }
    lines = ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
    lines += ["| " + " | ".join(cells.values()) + " |", "", fields["isolation"]]
    return "\n".join([told(fields["hardware"]), "", *lines])


def _ratios(name: str, theirs: list[float], others: list[float]) -> dict[str, Any]:
    """Round by round; nothing where the others did not run."""
    found = [one / other for one, other in zip(theirs, others, strict=False)]
    if not found:
        return {name: None, f"{name}_range": None}
    return {name: statistics.median(found), f"{name}_range": [min(found), max(found)]}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _shown(fields: dict[str, Any], name: str) -> str:
    if fields[name] is None:
        return "-"
    low, high = fields[f"{name}_range"]
    return f"{fields[name]:.2f} ({low:.2f} to {high:.2f})"


def _field(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _said(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
