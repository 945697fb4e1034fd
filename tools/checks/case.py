"""Everything that is known of a records folder before its rules are asked, each part or None."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from core.data.findings import Finding
from tools.checks.folder import Folder, check_folder, open_folder
from tools.checks.plain_json import Submission, check_schema, read_submission
from tools.checks.script import Code, check_script
from tools.checks.seed_logs import SeedLog, read_logs
from tools.strangers.logs import usable
from tools.strangers.packed import Unpacked

_NON_RECORD = re.compile(r"non[-_ ]?record|unlimited", re.I)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder, read."""

    folder: Folder
    submission: Submission | None
    logs: tuple[SeedLog, ...]
    others: tuple[SeedLog, ...]  # logs under other names, which are of some run too
    code: Code

    @property
    def script(self) -> Unpacked | None:
        return self.code.script

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
    code, told = check_script(folder)
    findings += told
    logs, others = read_logs(folder)
    case = Case(folder=folder, submission=submission, logs=logs, others=others, code=code)
    return case, findings
