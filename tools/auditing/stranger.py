"""A stranger's scorer, played in a process of its own; its answers are read as a stranger's."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from core.score.answers import Answer, Floats, Record
from core.score.plays import Play
from tools.auditing.driver import VALIDATION
from tools.checks.folder import Folder, open_folder
from tools.checks.start import ADDRESS_BYTES, FILE_BYTES, MEMORY_BYTES
from tools.strangers.confined import GPUS, READABLE, landlock_version
from tools.strangers.isolated import Limits, Outcome, network_shell, python, run_isolated

DRIVER = Path(__file__).with_name("driver.py")
REQUEST, ANSWERS, EVENTS = "golf-request.json", "golf-answers.bin", "golf-events.txt"
MAX_HEAD_BYTES = 64 << 20
MAX_FLOATS = 1 << 27
MAX_EVENTS_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Event:
    """What Python was about to do."""

    phase: str  # start: before the first score was asked for; or score
    event: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen of a scorer's process, and what held it."""

    events: tuple[Event, ...]
    isolation: str
    network_held: bool  # by the system
    files_held: bool
    network: str = "a namespace without network"  # what holds it, where it is held
    files: str = "Landlock"
    own_validation: bool = False  # whether the submission's folder has a file that is named so


@dataclass(frozen=True, kw_only=True)
class Request:
    """A scorer of a folder, and what else it may read; `refused`: it must not, wherever it lies."""

    script: Path
    seconds: float
    readable: tuple[Path, ...] = ()
    refused: tuple[Path, ...] = ()


def play_stranger(request: Request, plays: Sequence[Play]) -> tuple[list[Answer], Watched]:
    """An answer to each play. ValueError where the script is not there or cannot be loaded."""
    if not request.script.is_file():
        raise ValueError(f"{request.script}: no such file; golf audit scaffold writes one")
    folder = open_folder(request.script.resolve().parent)
    if folder.excess:
        raise ValueError(f"{folder.root}: {folder.excess}; give the scorer a folder of its own")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place).resolve()
        _copy(folder, copy)
        done = _run(request, plays, copy)
        events = _events(copy / EVENTS, copy)
        answers = _answers(copy / ANSWERS, plays, done, request.script.name)
    held = [str(path.resolve()) for path in request.refused]
    within_reach = any(one.startswith(f"{place}/") for one in held for place in READABLE)
    watched = Watched(
        events=events,
        isolation=done.isolation,
        network_held=bool(network_shell()[0]),
        files_held=bool(landlock_version()) and not within_reach,
        files=f"Landlock {landlock_version()}",
        own_validation=any(VALIDATION in entry.name for entry in folder.files),
    )
    return answers, watched


def _copy(folder: Folder, place: Path) -> None:
    for entry in folder.files:
        (place / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (place / entry.path).write_bytes(folder.read(entry))


def _run(request: Request, plays: Sequence[Play], copy: Path) -> Outcome:
    readable = tuple(str(path.resolve()) for path in request.readable)
    asked = {
        "allowed": readable,
        "refused": [str(path.resolve()) for path in request.refused],
        "plays": [
            {
                "tokens": play.tokens.tolist(),
                "ask": play.ask,
                "states": play.kind in ("text", "future", "target"),
            }
            for play in plays
        ],
    }
    (copy / REQUEST).write_text(json.dumps(asked), encoding="utf-8")
    limits = Limits(
        seconds=request.seconds,
        file_bytes=FILE_BYTES,
        memory_bytes=0 if glob(GPUS) else ADDRESS_BYTES,  # noqa: PTH207
        resident_bytes=MEMORY_BYTES,
        confined=True,
        readable=(str(DRIVER.parent), *readable),
    )
    command = [*python(DRIVER), request.script.name, REQUEST, ANSWERS, EVENTS]
    return run_isolated(command, copy, {}, limits)


def _events(path: Path, copy: Path) -> tuple[Event, ...]:
    """Lines that say what they should; a stranger may have written others."""
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        lines = file.read(MAX_EVENTS_BYTES).decode("utf-8", "replace").splitlines()
    found = []
    for line in lines:
        try:
            one = json.loads(line)
            words = {name: str(one[name]) for name in ("phase", "event", "what")}
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        words["what"] = words["what"].replace(str(copy), ".")
        found.append(Event(**words))
    return tuple(found)


def _answers(path: Path, plays: Sequence[Play], done: Outcome, name: str) -> list[Answer]:
    """As many as were given; the others end with what the process ended with."""
    answers: list[Answer] = []
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            for play in plays:
                head = _head(file)
                if head is None:
                    break
                if "fatal" in head:
                    return [Record(len(p.tokens)).answer(str(head["fatal"])) for p in plays]
                answers.append(_answer(file, head, play))
    ended = _ended(done)
    late = [Record(len(play.tokens)).answer(ended) for play in plays[len(answers) :]]
    return [*answers, *late]


def _ended(done: Outcome) -> str:
    if done.timed_out:
        return f"stopped after {done.seconds:.0f} s; --seconds gives it more"
    if done.over_memory:
        return "stopped for its memory"
    last = done.output.strip().splitlines()[-1:] or ["no output"]
    return f"it ended with {done.code}: {last[0][-200:]}"


def _head(file: BinaryIO) -> dict[str, Any] | None:
    size = int.from_bytes(file.read(8), "little")
    if not 0 < size <= MAX_HEAD_BYTES:
        return None
    try:
        head = json.loads(file.read(size))
    except (ValueError, RecursionError):
        return None
    return head if isinstance(head, dict) else None


def _answer(file: BinaryIO, head: dict[str, Any], play: Play) -> Answer:
    """One answer; what does not fit the play is its error."""
    record = Record(len(play.tokens))
    try:
        count = int(head["floats"])
        if not 0 <= count <= MAX_FLOATS:
            raise ValueError(f"{count:,} numbers")
        numbers = np.frombuffer(file.read(8 * count), "<f8")
        at = 0
        for (first, size), state in zip(head["blocks"], head["states"], strict=True):
            if first < 0 or size < 0 or first + size > len(play.tokens):
                reach = f"{first} .. {first + size - 1}"
                raise ValueError(f"it scored targets {reach} of a text of {len(play.tokens)}")
            record.add(first, numbers[at : at + size], str(state))
            at += size
        at = _keep(record.log_probs, head["asked"], numbers, at)
        parts: dict[int, Floats] = {}
        _keep(parts, head["bytes"], numbers, at)
    except (ValueError, KeyError, TypeError) as error:
        return record.answer(f"it gave an answer that is none: {error!s:.200}")
    return record.answer(str(head["error"]), byte_nats=parts, opaque=str(head["opaque"]))


def _keep(found: dict[int, Floats], heads: Any, numbers: Floats, at: int) -> int:
    for target, size in heads:
        if not 0 <= size <= len(numbers) - at:
            raise ValueError(f"{size} numbers for target {target}, {len(numbers) - at} are left")
        found.setdefault(int(target), numbers[at : at + size])  # the first stands
        at += size
    return at
