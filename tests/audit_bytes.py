"""docs/audit-bytes.md, printed: how the audit of data and logs judged what was planted for it.

python -m tests.audit_bytes > docs/audit-bytes.md
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from core.score.book import BOOK, RULINGS, covering
from core.score.failures import FAILURES
from core.score.rules import VALIDATION_BYTES
from tests.tools import planted_data, planted_logs
from tools.main import main

TEXT = Path(__file__).with_name("audit_bytes.txt")
FEW = 3
HEAD = "| planted | is | must fail | fails | named | judged |\n|---|---|---|---|---|---|"


class Planted(Protocol):
    """What the rows of both lists have."""

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> str: ...
    @property
    def fails(self) -> frozenset[str]: ...
    @property
    def open(self) -> frozenset[str]: ...


def named(findings: Sequence[dict[str, str]]) -> set[str]:
    """Failures and conditions that the findings which do not pass stand for or speak of; a rule
    that stands for many names none by itself.
    """
    bad = [one for one in findings if one["status"] != "PASS"]
    words = {x for one in bad for x in re.findall(r"\b[BL]\d+\b", one["evidence"])}
    rules = {one["rule"] for one in bad}
    few = [behind for rule in rules if len(behind := covering(rule)) <= FEW]
    return words | rules | {one for behind in few for one in behind}


def of(findings: Sequence[dict[str, str]], status: str) -> set[str]:
    """The rules with a finding of this status."""
    return {one["rule"] for one in findings if one["status"] == status}


def audited(words: Sequence[object]) -> list[dict[str, str]]:
    """The findings of one audit."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        main(["audit", *map(str, words), "--json"])
    fields: dict[str, Any] = json.loads(out.getvalue())
    findings: list[dict[str, str]] = fields["findings"]
    return findings


def judged(planted: Planted, findings: Sequence[dict[str, str]]) -> bool:
    """Whether exactly the expected rules fail, and what was planted is named."""
    said = not planted.names or planted.names in named(findings)
    return of(findings, "FAIL") == planted.fails and said


def row(planted: Planted, findings: Sequence[dict[str, str]]) -> str:
    """A line of the table."""
    expected = ", ".join(sorted(planted.fails)) or ("none: open" if planted.names else "none")
    fails = ", ".join(sorted(of(findings, "FAIL"))) or "none"
    said = "yes" if planted.names in named(findings) else "no"
    right = "rightly" if judged(planted, findings) else "WRONGLY"
    cells = (
        planted.name,
        planted.names or "honest",
        expected,
        fails,
        said if planted.names else "-",
        right,
    )
    return f"| {' | '.join(cells)} |"


def tables() -> tuple[str, str, str]:
    """Data, logs, and how many were judged rightly."""
    parts, counts = [], {True: [0, 0], False: [0, 0]}
    for module, words in ((planted_data, _data), (planted_logs, _logs)):
        lines = [HEAD]
        for planted in (*module.PLANTED, *module.HONEST):
            with tempfile.TemporaryDirectory() as folder:
                findings = audited(words(planted, Path(folder)))
            lines.append(row(planted, findings))
            counts[bool(planted.names)][0] += judged(planted, findings)
            counts[bool(planted.names)][1] += 1
        parts.append("\n".join(lines))
    (named_, faults), (passed, honest) = counts[True], counts[False]
    said = f"{named_} of {faults} faults are named, {passed} of {honest} honest ones fail nothing."
    return parts[0], parts[1], said


def _data(planted: planted_data.Planted, folder: Path) -> list[str]:
    return ["data", *planted.make(folder).arguments]


def _logs(planted: planted_logs.Planted, folder: Path) -> list[object]:
    return ["logs", *planted.make(folder)]


def signs() -> str:
    """The failures that a ratio of bytes shows."""
    lines = ["| bytes counted, times the true ones | failure |", "|---|---|"]
    for one in FAILURES:
        if one.ratio is not None:
            lines.append(f"| {one.ratio[0]:g} to {one.ratio[1]:g} | {one.id}: {one.what} |")
    return "\n".join(lines)


def open_rows() -> str:
    """What nobody has decided."""
    rows = [f"| {x.id} | {x.what} | {x.source} |" for x in RULINGS if x.status == "open"]
    return "\n".join(["| id | question | source |", "|---|---|---|", *rows])


def page() -> str:
    """The whole page."""
    data, logs, said = tables()
    low, high = VALIDATION_BYTES
    text = TEXT.read_text(encoding="utf-8")
    places = {"SIGNS": signs(), "OPEN": open_rows(), "DATA": data, "LOGS": logs, "SUM": said}
    for name, part in places.items():
        text = text.replace(f"\n{name}\n", f"\n{part}\n")
    text = text.replace("LOW to HIGH", f"{low:,} to {high:,}")
    return text.replace("RULES rows", f"{len(BOOK)} rows")


if __name__ == "__main__":
    print(page(), end="")
