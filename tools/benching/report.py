"""Runs the rows of a suite; tables of markdown and one object of what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from tools.backends import installed, load
from tools.benching import steps
from tools.benching.hardware import told
from tools.benching.job import Job
from tools.benching.steps import device_kind
from tools.benching.suites import KINDS
from tools.say import note

Fields = dict[str, Any]
FAILURES = (ValueError, RuntimeError, OSError, ImportError, NotImplementedError, AssertionError)
NEEDED = {"cuda": ("cuda",), "metal": ("gpu",), "any": ("cuda", "gpu", "mps", "cpu")}
REASON_CHARACTERS = 200


def measured(jobs: Iterable[Job]) -> list[Fields]:
    """A row each, in order; one that cannot be measured here says why."""
    found = []
    for job in jobs:
        row = job.row
        note(f"{row.kind}: {row.title}")
        head = {"title": row.title, "kind": row.kind, "words": list(row.words), "tiny": job.tiny}
        reason = unfit(job)
        if reason is None:
            fields, reason = attempt(KINDS[row.kind].measure, job)
            if row.backend != "numpy":
                load(row.backend, "yardsticks").release()
        else:
            fields = {}
        status = "measured" if reason is None else "not measured"
        found.append({**head, "status": status, "reason": reason, **fields})
    return found


def unfit(job: Job) -> str | None:
    """Why this machine is not what the row is for."""
    backend, needs = job.row.backend, job.row.needs
    if backend == "numpy":
        return None
    if not installed(backend):
        return f"{backend} is not installed"
    device = load(backend, "distributed").Solo().device
    if job.tiny or device_kind(device) in NEEDED[needs]:
        return None
    return f"it needs {needs}, the device is {device}"


def attempt(measure: Callable[[Job], Fields], job: Job) -> tuple[Fields, str | None]:
    """What was found, or in a sentence why nothing was."""
    try:
        return measure(job), None
    except FAILURES as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {}, lines[0][:REASON_CHARACTERS]


def tables(fields: Fields) -> str:
    """Hardware, a table for each kind of row, and what stands below it."""
    parts = [told(fields["hardware"])]
    for kind, rows in groupby(fields["rows"], key=lambda row: row["kind"]):
        parts.append(f"{KINDS[kind].title}:\n\n{table(list(rows))}")
    parts += [steps.remarks(row) for row in fields["rows"] if _is_measured(row, "step")]
    return "\n\n".join(parts)


def table(rows: list[Fields]) -> str:
    """Of one kind; what could not be measured has its reason in the first column."""
    shown = [
        {"": row["title"], **KINDS[row["kind"]].cells(row)} for row in rows if _is_measured(row)
    ]
    columns = list(shown[0]) if shown else ["", "result"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        if _is_measured(row):
            cells = list(shown.pop(0).values())
        else:
            cells = [row["title"], f"not measured: {row['reason']}", *[""] * (len(columns) - 2)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def holds(rows: Iterable[Fields]) -> bool:
    """Whether both forms of every step that was measured trained the same model."""
    return all(steps.agrees(row) for row in rows if _is_measured(row, "step"))


def _is_measured(row: Fields, kind: str = "") -> bool:
    return row["status"] == "measured" and kind in ("", row["kind"])
