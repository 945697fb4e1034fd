"""The logs of a records folder, read within bounds: which they are, and what each says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.score.stats import sample
from tools.checks.folder import Entry, Folder
from tools.strangers.logs import MAX_BYTES, RunLog, read_text, text_of

MAX_LOGS = 128
MAX_LOGS_BYTES = 16 << 20  # of all logs; each may have MAX_BYTES
_START = re.compile(r"^recipe:(\S{1,80}) hash:([0-9a-f]{16}) seed:(\d{1,15}) ", re.M)
_IDENTITY = re.compile(r"^identity:([0-9a-f]{64})$", re.M)
_VERDICT = re.compile(r"(fits|failed: over the cap): artifact_bytes:(\d{1,15}) ")
_NAMED = (r"(.*/)?train_seed[-_]?\d+\.(log|txt)", r"train[^/]*\.(log|txt)", r".*\.log")


@dataclass(frozen=True, kw_only=True)
class SeedLog:
    """The log of one run: its text, what it says, and what only our own logs say."""

    name: str
    data: bytes
    log: RunLog
    recipe_hash: str | None  # the first 16 digits, seed included
    identities: tuple[str, ...]
    verdict: str  # of its last line, where that is the last of a finished run of ours
    verdict_bytes: int | None  # code and model, as that line says
    unread: str = ""  # why it is not read

    @property
    def results(self) -> str:
        """The text behind the source that a script may print first."""
        text = text_of(self.data)
        return text[len(self.log.embedded_source or "") :]

    @property
    def over_the_cap(self) -> bool:
        return self.verdict.startswith("failed")

    @property
    def eval_ms(self) -> float | None:
        """Of the score's line, or of its twin that is not exact; the whole, where that is told."""
        score, whole = self.log.score, self.log.phases_s.get("total_eval_s")
        if whole is not None:
            return 1000.0 * whole
        label = score.label.removesuffix("_exact") if score else ""
        twins = [x for x in self.log.finals if x.label.removesuffix("_exact") == label]
        return max((x.eval_time_ms for x in twins if x.eval_time_ms is not None), default=None)


def read_logs(folder: Folder) -> tuple[tuple[SeedLog, ...], tuple[SeedLog, ...]]:
    """The logs of the runs, by the names in use, else whatever text ends in a score; and others
    that are the log of some run too.
    """
    texts = [x for x in folder.files if x.suffix in (".log", ".txt")]
    named: list[Entry] = []
    for pattern in _NAMED:
        named = named or [entry for entry in texts if re.fullmatch(pattern, entry.path)]
    room = [MAX_LOGS_BYTES]
    logs = [_read(folder, entry, room, at) for at, entry in enumerate(named)]
    rest = [entry for entry in texts if entry not in named and entry.path != "requirements.txt"]
    others = [_read(folder, entry, room, at) for at, entry in enumerate(rest, len(named))]
    others = [one for one in others if one.recipe_hash or one.log.finals]
    return (tuple(logs), tuple(others)) if logs else (tuple(others), ())


def _read(folder: Folder, entry: Entry, room: list[int], at: int) -> SeedLog:
    """A log, if there is room for it; `room` is what may still be read."""
    said = ""
    if entry.size > MAX_BYTES:
        said = f"{entry.size:,} bytes, more than the {MAX_BYTES:,} that are read of a log"
    elif entry.size > room[0] or at >= MAX_LOGS:
        said = f"{MAX_LOGS} logs of {MAX_LOGS_BYTES:,} bytes in all are the most that is read"
    if said:
        return read_seed_log(entry.path, b"", f"not read: {said}; ship the lines of results")
    room[0] -= entry.size
    try:
        return read_seed_log(entry.path, folder.read(entry, MAX_BYTES))
    except OSError as error:
        return read_seed_log(entry.path, b"", f"not readable: {error.strerror}")


def read_seed_log(name: str, data: bytes, unread: str = "") -> SeedLog:
    text = text_of(data)
    start = _START.search(text)
    last = _VERDICT.match(text.rstrip().rsplit("\n", 1)[-1])
    return SeedLog(
        name=name,
        data=data,
        log=read_text(text, name),
        recipe_hash=start[2] if start else None,
        identities=tuple(_IDENTITY.findall(text)),
        verdict=last[1] if last else "",
        verdict_bytes=int(last[2]) if last else None,
        unread=unread,
    )


def disagreeing(log: RunLog) -> Iterator[str]:
    """Where a log tells its score in two ways: lines of the same label, exact or rounded."""
    score = log.score
    if score is None:
        return
    label = score.label.removesuffix("_exact")
    for other in log.finals:
        if other.label.removesuffix("_exact") != label or other == score:
            continue
        digits = 8 if other.exact == score.exact and score.exact else 4
        room = 0.51 * 10.0**-digits
        pairs = ((score.val_loss, other.val_loss), (score.val_bpb, other.val_bpb))
        if any(not abs(one - two) <= room for one, two in pairs):
            said = f"{other.val_bpb} in line {other.line} and {score.val_bpb} in line {score.line}"
            yield f"two scores under one label, {label:.60}: val_bpb {said}"


def spread(values: Iterable[float]) -> list[float]:
    """What a table may say of some values: their mean, standard deviations and extremes."""
    known = list(values)
    if not known:
        return []
    told = sample(known)
    sds = [] if told.sd is None else [told.sd, told.sd * ((told.n - 1) / told.n) ** 0.5]
    return [told.mean, *sds, min(known), max(known)]
