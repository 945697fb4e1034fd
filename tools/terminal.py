"""A run on a terminal: its log lines, and one live line while it trains."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from core.artifact.ledger import CAP_BYTES
from core.train.events import log_line
from core.train.recipe import Recipe
from tools.say import note


class Terminal:
    """Takes a run's events. Log lines go to stdout; the live line is stderr's, if it is a tty."""

    def __init__(self, recipe: Recipe, planned_bytes: int, quiet: bool = False) -> None:
        self.recipe = recipe
        self.planned_bytes = planned_bytes
        self.quiet = quiet
        self.val_bpb: float | None = None
        self.subset: dict[str, Any] | None = None
        self.lossy = False
        console = Console(stderr=True)
        self.live = Live(console=console, transient=True, auto_refresh=False)
        self.shows_live = console.is_terminal
        self.next_plain = 0.0

    def __enter__(self) -> Terminal:
        if self.shows_live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shows_live:
            self.live.stop()

    def __call__(self, kind: str, **fields: Any) -> None:
        if "val_bpb" in fields:
            self.val_bpb = fields["val_bpb"]
            self.subset = fields["subset"]
            self.lossy = bool(fields["lossy"])
        if kind in ("stop", "stopping_early") and self.quiet:
            note("Scoring, packing, and scoring the packed file.")
        line = log_line(kind, fields)
        if line is not None and not self.quiet:
            print(line, flush=True)
        if kind == "step":
            self._tell(self.status(fields), fields["progress"])

    def status(self, step: dict[str, Any]) -> str:
        """val BPB, bytes left under the cap, seconds left, tokens per second."""
        said = [f"subset {self.subset['name']}"] if self.subset else []
        said += ["lossy"] if self.lossy else []
        part = f" ({'; '.join(said)})" if said else ""
        bpb = "" if self.val_bpb is None else f"val BPB {self.val_bpb:.4f}{part}  "
        return (
            f"{step['progress']:4.0%}  step {step['step']}  {bpb}"
            f"{CAP_BYTES - self.planned_bytes:,} of {CAP_BYTES:,} bytes left  "
            f"{self.seconds_left(step):.0f} s left  {step['tokens_per_s']:,.0f} tokens/s"
        )

    def seconds_left(self, step: dict[str, Any]) -> float:
        """By the steps at their mean time, or by the budget, whichever ends first."""
        left = (step["steps"] - step["step"]) * step["step_avg_ms"] / 1000.0
        budget_s = self.recipe.schedule.budget_s
        return min(left, budget_s - step["train_ms"] / 1000.0) if budget_s else left

    def _tell(self, status: str, progress: float) -> None:
        if self.shows_live:
            self.live.update(Text(status), refresh=True)
        elif self.quiet and progress >= self.next_plain:
            print(status, file=sys.stderr, flush=True)
            self.next_plain = progress + 0.1
