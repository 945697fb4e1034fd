"""Everything that is known of a records folder before its rules are asked, each part or None."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.data.findings import Finding
from core.score.stats import sample
from tools.checks.folder import Entry, Folder, check_folder, open_folder
from tools.checks.plain_json import Submission, check_schema, read_submission
from tools.checks.script import check_script
from tools.strangers.logs import RunLog, read_text, usable
from tools.strangers.packed import Unpacked

_START = re.compile(r"^recipe:(\S{1,80}) hash:([0-9a-f]{16}) seed:(\d{1,15}) ", re.M)
_IDENTITY = re.compile(r"^identity:([0-9a-f]{64})$", re.M)
_VERDICT = re.compile(r"^(?:fits|failed: over the cap): artifact_bytes:\d+ ")
_NON_RECORD = re.compile(r"non[-_ ]?record|unlimited", re.I)


@dataclass(frozen=True, kw_only=True)
class SeedLog:
    """The log of one run: its text, what it says, and what only our own logs say."""

    name: str
    data: bytes
    log: RunLog
    recipe_hash: str | None  # the first 16 digits, seed included
    identities: tuple[str, ...]
    verdict: bool  # whether its last line is that of a finished run of ours

    @property
    def results(self) -> str:
        """The text behind the source that a script may print first."""
        text = self.data.decode("utf-8", "replace")
        return text[len(self.log.embedded_source or "") :]

    @property
    def eval_ms(self) -> float | None:
        """Of the score's line, or of its twin that is not exact; the whole, where that is told."""
        score, whole = self.log.score, self.log.phases_s.get("total_eval_s")
        if whole is not None:
            return 1000.0 * whole
        label = score.label.removesuffix("_exact") if score else ""
        twins = [x for x in self.log.finals if x.label.removesuffix("_exact") == label]
        return max((x.eval_time_ms for x in twins if x.eval_time_ms is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder, read."""

    folder: Folder
    submission: Submission | None
    logs: tuple[SeedLog, ...]
    script: Unpacked | None

    @property
    def record(self) -> bool:
        """Whether it claims a place on the leaderboard; a submission that says nothing does."""
        if self.submission is None:
            return False
        told = self.submission.track
        return not _NON_RECORD.search(told or self.folder.root.resolve().parent.name)

    @property
    def ours(self) -> bool:
        return self.submission is not None and self.submission.ours is not None

    def of_seed(self, seed: int) -> SeedLog | None:
        """The log of a seed; a single log that tells none is every seed's."""
        if len(self.logs) == 1 and self.logs[0].log.seed is None:
            return self.logs[0]
        return next((one for one in self.logs if one.log.seed == seed), None)

    def values(self, name: str) -> list[float]:
        """val_loss or val_bpb of every log that has a score."""
        scores = [one.log.score for one in self.logs]
        return [getattr(score, name) for score in scores if score and usable(score)]


def open_case(root: Path) -> tuple[Case, list[Finding]]:
    """The folder, and the findings of reading it."""
    folder = open_folder(root)
    findings = list(check_folder(folder))
    submission, finding = read_submission(folder)
    findings.append(finding)
    if submission is not None:
        findings += check_schema(submission)
    script, told = check_script(folder)
    findings += told
    logs = tuple(read_seed_log(folder, entry) for entry in log_files(folder))
    return Case(folder=folder, submission=submission, logs=logs, script=script), findings


def log_files(folder: Folder) -> list[Entry]:
    """The logs of the runs: by the names in use, else whatever file ends in a score."""
    patterns = (r"(.*/)?train_seed[-_]?\d+\.(log|txt)", r"train[^/]*\.(log|txt)", r".*\.log")
    for pattern in patterns:
        named = [entry for entry in folder.files if re.fullmatch(pattern, entry.path)]
        if named:
            return named
    texts = [entry for entry in folder.files if entry.suffix == ".txt"]
    return [entry for entry in texts if read_seed_log(folder, entry).log.finals]


def read_seed_log(folder: Folder, entry: Entry) -> SeedLog:
    try:
        data = folder.read(entry)
    except OSError:
        data = b""
    text = data.decode("utf-8", "replace")
    start = _START.search(text)
    last = text.rstrip().rsplit("\n", 1)[-1]
    return SeedLog(
        name=entry.path,
        data=data,
        log=read_text(text, entry.path),
        recipe_hash=start[2] if start else None,
        identities=tuple(_IDENTITY.findall(text)),
        verdict=_VERDICT.match(last) is not None,
    )


def spread(values: Iterable[float]) -> list[float]:
    """What a table may say of some values: their mean, standard deviations and extremes."""
    known = list(values)
    if not known:
        return []
    told = sample(known)
    sds = [] if told.sd is None else [told.sd, told.sd * ((told.n - 1) / told.n) ** 0.5]
    return [told.mean, *sds, min(known), max(known)]
