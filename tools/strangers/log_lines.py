"""The lines of a training log, one by one: what each kind looks like, and what it says.

Numbers are found by their names, wherever they stand in the line, since every script of the public
records prints a variant of its own: `step:5/20 train_loss:2.1`, `5/20 train_loss: 2.1`. A line is
foreign text: only its first characters are looked at, and every pattern takes linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

LINE_CHARACTERS = 2_000  # of a line are read; no known line of results is longer than 400
UNITS_MS = {"ms": 1.0, "s": 1000.0, "m": 60_000.0}

NUMBER = r"(nan|[-+]?inf|[-+]?\d{1,15}(?:\.\d{0,20})?(?:e[-+]?\d{1,3})?)"
_STAMP = re.compile(
    r"\s*(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?|\[[^\]]{0,40}\])[ :|-]*"
)
_LEVEL = re.compile(r"^(?:DEBUG|INFO|WARNING|ERROR)\b[ :|-]*")
_STEP = re.compile(r"(?:^|[\s|\]])(?:step\s?:\s?)?(\d{1,9})/(\d{1,9})[\s:]+(train_loss|val_loss)\b")
_STOP = re.compile(r"stopp(?:ing_early|ed):\s?(?:wallclock_cap\s)?")
_STOP_STEP = re.compile(r"\bstep:\s?(\d{1,9})/(\d{1,9})")
_SIZE = re.compile(
    r"\s*((?:serialized[ _]model|code size|total submission size|total artifact)[^:]{0,80}):"
    r"\s{0,4}(?:[\d.]{1,18}\s?[kMG]i?B\s?\(\s?)?(\d[\d,]{0,17})\b(?!\.\d|\s?[kMG]i?B\b)",
    re.IGNORECASE,
)  # a size that is rounded to kilobytes or megabytes is none
_LOSSY = re.compile(r"\blossy:\s?(\"[^\"]{0,400}\"?|\S{1,100})")
_SUBSET = re.compile(r"\bsubset:\s?(\{[^}]{0,400}\}|[\w.-]{1,60})")
_BEFORE = re.compile(r"pre[-_ ]?quant|(?:un|non|not)[-_ ]?quant|post[-_ ]?ema", re.IGNORECASE)
_AFTER = re.compile(
    r"quant|int\d|fp[48]\b|ternary|gptq|roundtrip|ttt|sliding|final|artifact", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """A step of training, `line` counted from 1; what the line does not say is None."""

    line: int
    step: int
    steps: int
    train_loss: float  # nats per token
    train_time_ms: float | None
    step_avg_ms: float | None
    tokens_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class ValLine:
    """A validation on the way; of most scripts rounded to 4 decimals."""

    line: int
    step: int
    steps: int
    val_loss: float  # nats per token
    val_bpb: float
    train_time_ms: float | None
    step_avg_ms: float | None
    tokens: int | None
    bytes: int | None
    subset: str | None
    lossy: str | None = None  # what the tokenizer loses of the text


@dataclass(frozen=True, kw_only=True)
class FinalLine:
    """A score behind training, by its label: before or after quantization, adapted or not."""

    line: int
    label: str
    val_loss: float  # nats per token
    val_bpb: float
    eval_time_ms: float | None
    tokens: int | None
    bytes: int | None
    subset: str | None
    lossy: str | None = None  # what the tokenizer loses of the text

    @property
    def after_quantization(self) -> bool:
        """Whether the label says that the packed model was scored; the words before it win."""
        return _BEFORE.search(self.label) is None and _AFTER.search(self.label) is not None

    @property
    def exact(self) -> bool:
        """Whether it is printed in full; its twin without `_exact` is rounded to 4 decimals."""
        return self.label.endswith("_exact")


@dataclass(frozen=True, kw_only=True)
class SizeLine:
    line: int
    label: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StopLine:
    line: int
    early: bool
    step: int | None
    steps: int | None
    train_time_ms: float | None


Line = StepLine | ValLine | FinalLine | SizeLine | StopLine


def read_line(at: int, line: str) -> Line | None:
    """What a line of results says, or None where it is of no known kind."""
    if "train_loss" in line or "val_loss" in line:
        text = unstamped(line)
        return _progress(at, text) or _final(at, text)
    if match := _STOP.search(line):
        return _stop(at, line, early="early" in match[0])
    if match := _SIZE.match(unstamped(line)):
        size = int(match[2].replace(",", ""))
        return SizeLine(line=at, label=match[1].strip(), bytes=size)
    return None


def unstamped(line: str) -> str:
    """The line without the time, rank or level that a logger or a launcher wrote before it."""
    match = _STAMP.match(line)
    return _LEVEL.sub("", line[match.end() :]) if match else line


def number(line: str, name: str) -> float | None:
    match = _named(name).search(line)
    return float(match[1]) if match else None


def count(line: str, name: str) -> int | None:
    value = number(line, name)
    return int(value) if value is not None and 0 <= value < 1e15 else None


def milliseconds(line: str, name: str) -> float | None:
    """A duration by its unit; one without a unit is not known."""
    match = _named(name).search(line)
    return float(match[1]) * UNITS_MS[match[2].lower()] if match and match[2] else None


@cache
def _named(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[\s,|({{]){re.escape(name)}\s?[:=]\s?{NUMBER}(ms|s|m)?\b", re.I)


def _progress(at: int, line: str) -> StepLine | ValLine | None:
    match = _STEP.search(line)
    loss, bpb = number(line, match[3] if match else ""), number(line, "val_bpb")
    if match is None or loss is None:
        return None
    where: dict[str, Any] = {
        "line": at,
        "step": int(match[1]),
        "steps": int(match[2]),
        "train_time_ms": milliseconds(line, "train_time"),
        "step_avg_ms": milliseconds(line, "step_avg"),
    }
    if match[3] == "train_loss":
        speed = number(line, "tok_s") or number(line, "tok/s")
        return StepLine(**where, train_loss=loss, tokens_per_s=speed)
    return None if bpb is None else ValLine(**where, **_over(line), val_loss=loss, val_bpb=bpb)


def _final(at: int, line: str) -> FinalLine | None:
    loss, bpb = number(line, "val_loss"), number(line, "val_bpb")
    if loss is None or bpb is None:
        return None
    return FinalLine(
        line=at,
        label=line.split("val_loss")[0].strip(" \t:|-"),
        val_loss=loss,
        val_bpb=bpb,
        eval_time_ms=milliseconds(line, "eval_time"),
        **_over(line),
    )


def _over(line: str) -> dict[str, Any]:
    """What a score was taken over, where the line says so."""
    subset = _SUBSET.search(line)
    lossy = _LOSSY.search(line)
    return {
        "tokens": count(line, "tokens"),
        "bytes": count(line, "bytes"),
        "subset": subset[1] if subset else None,
        "lossy": lossy[1].strip('"') if lossy else None,
    }


def _stop(at: int, line: str, early: bool) -> StopLine:
    where = _STOP_STEP.search(line)
    return StopLine(
        line=at,
        early=early,
        step=int(where[1]) if where else None,
        steps=int(where[2]) if where else None,
        train_time_ms=milliseconds(line, "train_time"),
    )
