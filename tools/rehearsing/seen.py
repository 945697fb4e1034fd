"""What was seen of a rehearsal: seconds of each stage's step, of each scoring, of each phase."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.train.recipe import Recipe
from core.train.schedules import Stage, stage, stages

Event = dict[str, Any]
LEAST_BATCHES = 3  # of a scoring, to tell what is done once from what is done for each


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """One scoring of a part of the split."""

    seconds: float
    targets: int
    batches: int
    batch_s: float | None  # of one in the later half, which compiles nothing; None: too few

    def whole_s(self, targets: int) -> float:
        """Of so many targets: what came once comes once, the batches in proportion.

        Where they were too few to tell, all of it in proportion: too much, if anything.
        """
        share = targets / self.targets
        if self.batch_s is None:
            return self.seconds * max(share, 1.0)
        batches_s = min(self.batches * self.batch_s, self.seconds)
        return self.seconds - batches_s + share * batches_s


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All of it."""

    start: Event
    first_step_at_s: float  # of the wall's clock
    passes_s: list[list[float]]  # of the warm-up, by stage; the first one compiles
    step_s: dict[Stage, float]
    steps: dict[Stage, int]
    scorings: dict[str, Scoring]  # by the label's first word: pre, quantized, final
    phases_s: dict[str, float]
    peak_bytes: int | None
    model_bytes: int


def read_events(folder: Path) -> list[Event]:
    """The log of a run as it was witnessed; ValueError where there is none."""
    path = folder / "log.jsonl"
    if not path.is_file():
        raise ValueError(f"the rehearsal left no {path}: what its processes said stands above")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def warm_at_s(folder: Path) -> float:
    """When a run's first step was due, by the wall's clock."""
    return float(_one(read_events(folder), "warmup")["at_s"])


def observe(folder: Path, recipe: Recipe) -> Seen:
    """A rehearsal of this recipe, from its folder."""
    events = read_events(folder)
    warmup, phases, artifact = (_one(events, kind) for kind in ("warmup", "phases", "artifact"))
    times = step_times(events, recipe)
    return Seen(
        start=_one(events, "start"),
        first_step_at_s=warmup["at_s"],
        passes_s=[[ms / 1000.0 for ms in one] for one in warmup["passes_ms"]],
        step_s={stage: statistics.median(_settled(spent)) for stage, spent in times.items()},
        steps={stage: len(spent) for stage, spent in times.items()},
        scorings={
            event["label"].split("_")[0]: scoring(event)
            for event in events
            if event["event"] == "scored"
        },
        phases_s=phases["phases_s"],
        peak_bytes=phases["peak_bytes"],
        model_bytes=artifact["model_bytes"],
    )


def step_times(events: list[Event], recipe: Recipe) -> dict[Stage, list[float]]:
    """Seconds of every step, by stage; a stage of the recipe that never came is an error."""
    found: dict[Stage, list[float]] = {one: [] for one in stages(recipe)}
    step, at_ms = 0, 0.0
    for event in events:
        if event["event"] == "step":  # behind a bad one it is the mean of both
            spent_s = (event["train_ms"] - at_ms) / 1000.0 / (event["step"] - step)
            found[stage(recipe, event["progress"])].append(spent_s)
            step, at_ms = event["step"], event["train_ms"]
    if missed := [one for one, spent in found.items() if not spent]:
        raise ValueError(f"the rehearsal never came to {missed[0]}; give it more --steps")
    return found


def scoring(event: Event) -> Scoring:
    """From the event behind it and the beats since the event before: one behind each batch."""
    beats = event["beats_s"]
    count, half = len(beats), len(beats) // 2
    later_s = (beats[-1] - beats[half - 1]) / (count - half) if count >= LEAST_BATCHES else None
    return Scoring(
        seconds=event["eval_ms"] / 1000.0,
        targets=event["tokens"],
        batches=count,
        batch_s=later_s,
    )


def _settled(spent: list[float]) -> list[float]:
    """Without the first one, which comes behind a switch."""
    return spent[1:] or spent


def _one(events: list[Event], kind: str) -> Event:
    found = [event for event in events if event["event"] == kind]
    if not found:
        raise ValueError(f"the rehearsal did not come to its {kind}: what it said stands above")
    return found[-1]
