"""What a training log says: of the reference scripts in all their variants, and of our own runs.

A log is a stranger's data. It is bounded before it is read, no input raises, and what was looked
for and not found is named. A log may begin with the whole source of its script: nothing that
stands there is a result.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.strangers.log_headers import (
    MAX_SETTINGS,
    SETTING_CHARACTERS,
    modified,
    pairs,
    part_of,
    phases,
    setting,
    stated_tokens,
)
from tools.strangers.log_lines import (
    LINE_CHARACTERS,
    FinalLine,
    Line,
    SizeLine,
    StepLine,
    StopLine,
    ValLine,
    count,
    read_line,
    unstamped,
)
from tools.strangers.log_source import recipe_settings, source_end

MAX_BYTES = 8 << 20  # of a log; the longest public one has 2 MB
MAX_LINES = 200_000

_SEED_IN_NAME = re.compile(r"(?:^|[^a-z])(?:seed|s)[-_]?(\d{1,10})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """One run, as its log tells it; None and empty where the log does not say (see `missing`)."""

    path: str
    seed: int | None = None
    hyperparameters: Mapping[str, str] = field(default_factory=dict)  # as they were printed
    steps: tuple[StepLine, ...] = ()
    vals: tuple[ValLine, ...] = ()
    finals: tuple[FinalLine, ...] = ()
    sizes: tuple[SizeLine, ...] = ()
    code_bytes: int | None = None  # compressed, where both are told
    model_bytes: int | None = None  # compressed
    total_bytes: int | None = None  # code and compressed model
    last_step: int | None = None
    train_time_ms: float | None = None
    stopped_early: bool = False  # by the wall clock
    phases_s: Mapping[str, float] = field(default_factory=dict)  # as hessians_s, total_eval_s
    world_size: int | None = None
    train_shards: int | None = None
    tokens: int | None = None  # scored: of the score's line, else of the header
    bytes: int | None = None  # scored, where the score's line says so: in our own logs
    stated_tokens: int | None = None  # of the validation text, as the header says
    lossy: str | None = None  # what the tokenizer loses, where a score says so
    subset: str | None = None  # why the score is not one of the whole split
    modified: str | None = None  # what was changed in the model that was scored
    embedded_source: str | None = None  # to the byte, but for what is not UTF-8
    source_bytes: int = 0
    missing: tuple[str, ...] = ()  # what was looked for and not found
    notes: tuple[str, ...] = ()  # what is odd

    @property
    def score(self) -> FinalLine | None:
        """The last line of a score after quantization, test-time training included; of a line
        and its exact twin the exact one. Nothing from before quantization is a score.
        """
        after = [final for final in self.finals if final.after_quantization]
        if not after:
            return None
        last = after[-1]
        twins = [final for final in after if final.label == f"{last.label}_exact"]
        return twins[-1] if twins else last

    @property
    def step_avg_ms(self) -> float | None:
        """Milliseconds a step over the whole of training."""
        if self.train_time_ms is None or not self.last_step:
            return None
        return self.train_time_ms / self.last_step

    @property
    def implied_bytes(self) -> float | None:
        """The bytes that the score was divided by: val_loss / ln 2 * tokens / val_bpb."""
        score = self.score
        if score is None or not self.tokens or not usable(score):
            return None
        return score.val_loss / math.log(2.0) * self.tokens / score.val_bpb


def usable(score: FinalLine) -> bool:
    """Whether both numbers are finite and positive."""
    return all(0 < value < math.inf for value in (score.val_loss, score.val_bpb))


def read_log(path: str | Path) -> RunLog:
    """A log file, or a run folder (log.txt and recipe.json). Never raises for what is there."""
    path = Path(path)
    try:
        if path.is_dir():
            return _with_recipe(read_log(path / "log.txt"), path)
        if not path.is_file():
            return RunLog(path=str(path), missing=("the file",))
        size = path.stat().st_size
        if size > MAX_BYTES:
            said = f"anything: {size:,} bytes, and {MAX_BYTES:,} are the most that is read"
            return RunLog(path=str(path), missing=(said,))
        return read_text(text_of(path.read_bytes()), str(path))
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        return RunLog(path=str(path), missing=(f"the file: {error}",))


def text_of(data: bytes) -> str:
    """UTF-8; or UTF-16, as shells of Windows write it: behind its mark each other byte is 0."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    wide = marked and 3 * data.count(0) > len(data)
    return data.decode("utf-16" if wide else "utf-8", "replace")


def read_text(text: str, subject: str) -> RunLog:
    """The text of a log; `subject` is what it is called, in whose name a seed may stand."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n", MAX_LINES)
    end, first, notes = source_end(lines)
    source = "\n".join(lines[:end]) if end else None
    if len(lines) > MAX_LINES:
        notes = [*notes, f"more than {MAX_LINES:,} lines: the rest is not read"]
    shown = [line[:LINE_CHARACTERS] for line in lines[first:MAX_LINES]]
    found = [line for at, text in enumerate(shown) if (line := read_line(first + at + 1, text))]
    log = RunLog(
        path=subject,
        embedded_source=source,
        source_bytes=len(source.encode("utf-8", "replace")) if source else 0,
        notes=tuple(notes),
        **_header(shown, found, first),
        **_results(found),
    )
    return _judged(log, subject)


def _header(lines: list[str], found: list[Line], first: int) -> dict[str, Any]:
    """What is told apart from results: the settings before the first step, and the phases."""
    progress = [line.line - first for line in found if isinstance(line, StepLine | ValLine)]
    start = min(progress, default=len(lines) + 1) - 1
    settings: dict[str, str] = {}
    in_block, lines = False, [unstamped(line) for line in lines]
    for line in lines[:start]:
        row = setting(line) if in_block else None
        in_block = row is not None or line.strip().lower() == "hyperparameters:"
        for name, value in [row] if row else pairs(line):
            if len(settings) < MAX_SETTINGS:
                settings[name] = value[:SETTING_CHARACTERS]
    tokens = [told for line in lines if (told := stated_tokens(line)) is not None]
    return {
        "hyperparameters": settings,
        "world_size": _whole(settings.get("world_size")),
        "train_shards": next((n for x in lines[:start] if (n := count(x, "train_shards"))), None),
        "seed": _whole(settings.get("seed")),
        "tokens": tokens[-1] if tokens else None,
        "phases_s": dict(pair for line in lines for pair in phases(line)),
        "lossy": next((x.lossy for x in found if isinstance(x, ValLine) and x.lossy), None),
        "modified": next((said for line in lines if (said := modified(line))), None),
    }


def _results(found: list[Line]) -> dict[str, Any]:
    steps = tuple(line for line in found if isinstance(line, StepLine))
    vals = tuple(line for line in found if isinstance(line, ValLine))
    sizes = tuple(line for line in found if isinstance(line, SizeLine))
    told = [line for line in found if isinstance(line, StepLine | ValLine | StopLine)]
    numbers = [line.step for line in told if line.step is not None]
    times_ms = [line.train_time_ms for line in told if line.train_time_ms is not None]
    return {
        "steps": steps,
        "vals": vals,
        "finals": tuple(line for line in found if isinstance(line, FinalLine)),
        "sizes": sizes,
        "code_bytes": _size(sizes, "code size (compressed)", "code size"),
        "model_bytes": _size(sizes, "serialized model ", "serialized_model_"),
        "total_bytes": _size(sizes, "total submission size ", "total submission", "total artifact"),
        "last_step": numbers[-1] if numbers else None,
        "train_time_ms": times_ms[-1] if times_ms else None,
        "stopped_early": any(isinstance(line, StopLine) and line.early for line in told),
    }


def _size(sizes: Iterable[SizeLine], *labels: str) -> int | None:
    """The last size of the first label there is: the uncompressed model is not the artifact's."""
    for label in labels:
        found = [size.bytes for size in sizes if size.label.lower().startswith(label)]
        if found:
            return found[-1]
    return None


def _judged(log: RunLog, subject: str) -> RunLog:
    """The log with what only the whole of it tells: labels of its score, seed, what is missing."""
    score, notes = log.score, list(log.notes)
    named = _SEED_IN_NAME.search(Path(subject).stem)
    seed = int(named[1]) if named and log.seed is None else log.seed
    if named and seed != int(named[1]):
        notes.append(f"its name says seed {named[1]}, its text {seed}")
    judged = replace(
        log,
        seed=seed,
        tokens=score.tokens if score and score.tokens is not None else log.tokens,
        bytes=score.bytes if score else None,
        stated_tokens=log.tokens,
        lossy=next((x.lossy for x in log.finals if x.lossy), log.lossy),
        subset=score.subset if score and score.subset else part_of(log.hyperparameters),
        notes=tuple(notes),
    )
    return replace(judged, missing=_missing(judged))


def _missing(log: RunLog) -> tuple[str, ...]:
    wanted = {
        "seed": log.seed is not None,
        "hyperparameters": log.hyperparameters,
        "steps": log.steps,
        "validations on the way": log.vals,
        "score after quantization": log.score,
        "code size": log.code_bytes is not None,
        "model size": log.model_bytes is not None,
        "total size": log.total_bytes is not None,
        "training time": log.train_time_ms is not None,
        "world size": log.world_size is not None,
        "scored tokens": log.tokens is not None,
    }
    return tuple(name for name, found in wanted.items() if not found)


def _with_recipe(log: RunLog, folder: Path) -> RunLog:
    """The log of a run folder with the recipe's fields as hyperparameters."""
    recipe, problem = recipe_settings(folder / "recipe.json")
    notes = (*log.notes, problem) if problem else log.notes
    seed = log.seed if log.seed is not None else _whole(recipe.get("seed"))
    settings = {**log.hyperparameters, **recipe}
    read = replace(log, path=str(folder), hyperparameters=settings, seed=seed, notes=notes)
    return read if log.missing == ("the file",) else replace(read, missing=_missing(read))


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,15}", text) else None
