"""A group of runs to compare: which logs count, what is refused, what is odd about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.score.stats import at
from tools.strangers.log_lines import FinalLine, StepLine, ValLine
from tools.strangers.log_places import find_logs
from tools.strangers.logs import RunLog, read_log, usable

Curve = list[tuple[float, float]]  # (step or seconds, val_bpb)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run by its score."""

    log: RunLog
    score: FinalLine

    @property
    def bytes_per_token(self) -> float:
        return self.score.val_loss / math.log(2.0) / self.score.val_bpb

    def by_step(self) -> Curve:
        """Scores on the way, before quantization, but for that of the untrained model. Our own
        logs tell the last of them as a final line.
        """
        vals = [val for val in self.log.vals if val.step > 0 and val.subset is None]
        told = [(val.step, val.val_bpb) for val in vals]
        end, finals = self.log.last_step, self.log.finals
        last = [final.val_bpb for final in finals if final.label == "pre_quantization"]
        told = [*((end, bpb) for bpb in last if end), *told]
        return _curve((step, bpb) for step, bpb in told if 0 < bpb < math.inf)

    def by_seconds(self) -> Curve:
        """The same by training time; of a log whose validations tell none, by that of its steps."""
        told = [(x.step, x.train_time_ms) for x in self.log.steps]
        told += [(x.step, x.train_time_ms) for x in self.log.vals]
        times: Curve = [(0, 0.0), *((s, ms / 1000.0) for s, ms in told if s and ms is not None)]
        if self.log.last_step and self.log.train_time_ms is not None:
            times.append((self.log.last_step, self.log.train_time_ms / 1000.0))
        clock = _curve(times)
        found = [(at(clock, step), bpb) for step, bpb in self.by_step()]
        return _curve((seconds, bpb) for seconds, bpb in found if seconds is not None)


def _curve(points: Iterable[tuple[float, float]]) -> Curve:
    """In order, with the last that is told of each x."""
    return sorted(dict(points).items())


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one side is: its runs, the logs that were left out with the reason, and what is odd."""

    name: str
    runs: tuple[Run, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def paths(self) -> set[Path]:
        return {Path(run.log.path).resolve() for run in self.runs}


def load_group(name: str, word: str) -> Group:
    """The finished runs that the word names, each once. ValueError where one is not a score of
    the model itself over the whole split, or where there is none.
    """
    runs: list[Run] = []
    left_out: list[str] = []
    notes: list[str] = []
    for path in find_logs(word):
        log = read_log(path)
        score = log.score
        _refuse(log)
        if score is None or not usable(score):
            why = "no score after quantization" if score is None else "its score is not a number"
            left_out.append(f"{path}: {why}")
            continue
        run = Run(log=log, score=score)
        if twin := next((other for other in runs if _copy(run, other)), None):
            left_out.append(f"{path}: the same run as {twin.log.path}")
            continue
        if like := next((other for other in runs if _same_numbers(run, other)), None):
            notes.append(f"{path} tells the numbers of {like.log.path}: if a copy, leave it out")
        runs.append(run)
        notes += [f"{path}: {note}" for note in log.notes]
    if not runs:
        raise ValueError(f"{name} has no finished run: {'; '.join(left_out)}")
    rounded = sum(_rounded(run) for run in runs)
    if rounded:
        notes.append(f"{name}: {rounded} scores have 4 decimals, and 0.0001 BPB may matter")
    return Group(name=name, runs=tuple(runs), left_out=tuple(left_out), notes=tuple(notes))


def oddities(groups: Sequence[Group]) -> list[str]:
    """What speaks against a comparison, seen over all runs."""
    runs = [run for group in groups for run in group.runs]
    found = []
    implied = [run.log.implied_bytes for run in runs]
    known = [size for size in implied if size is not None]
    if known and max(known) > 1.002 * min(known):
        found.append(
            f"the scores were divided by {min(known):,.0f} to {max(known):,.0f} bytes: not the "
            "same validation text, or not the same count of it"
        )
    labels = sorted({run.score.label for run in runs})
    if len(labels) > 1:
        found.append(f"the scores are of several kinds: {', '.join(labels)}")
    for group in groups:
        seeds = [run.log.seed for run in group.runs]
        twice = sorted({seed for seed in seeds if seed is not None and seeds.count(seed) > 1})
        if twice:
            found.append(f"{group.name} has several runs of the seeds {twice}")
    return found


def _refuse(log: RunLog) -> None:
    if log.modified:
        raise ValueError(
            f"{log.path}: the scored model was modified ({log.modified}); compare scores of "
            "models as they were trained"
        )
    if log.subset:
        raise ValueError(
            f"{log.path}: its score is of a subset ({log.subset[:80]}), which is an estimate; "
            "compare scores of the whole split (score.subset=full, or golf train --full)"
        )


def _copy(one: Run, other: Run) -> bool:
    """Whether both logs are of one run: no seed and no number differs, and the numbers have
    digits enough to tell runs apart; of rounded ones the whole text must be the same.
    """
    seeds = {one.log.seed, other.log.seed} - {None}
    if len(seeds) > 1 or not _same_numbers(one, other):
        return False
    return not _rounded(one) or _words(one.log) == _words(other.log)


def _same_numbers(one: Run, other: Run) -> bool:
    """Whether scores, times and all that both tell of a step agree; one may be cut in front."""
    if _result(one) != _result(other):
        return False
    ours, theirs = _on_the_way(one.log), _on_the_way(other.log)
    return all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())


def _result(run: Run) -> tuple[float | None, ...]:
    log, score = run.log, run.score
    return (score.val_loss, score.val_bpb, log.train_time_ms, log.last_step, log.model_bytes)


def _on_the_way(log: RunLog) -> dict[tuple[type, int], StepLine | ValLine]:
    """What is told of each step, wherever in the log it stands."""
    lines: tuple[StepLine | ValLine, ...] = (*log.steps, *log.vals)
    return {(type(line), line.step): replace(line, line=0) for line in lines}


def _rounded(run: Run) -> bool:
    return round(run.score.val_bpb, 4) == run.score.val_bpb


def _words(log: RunLog) -> list[bytes]:
    path = Path(log.path)
    return (path / "log.txt" if path.is_dir() else path).read_bytes().split()
