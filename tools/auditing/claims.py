"""Numbers that somebody claims of some logs: held to them, to their digits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.data.findings import Finding
from core.score.rules import found
from tools.checks.bytes import CODE_CLAIMS, TOTAL_CLAIMS
from tools.checks.case import Case
from tools.checks.folder import Folder
from tools.checks.numbers import check_numbers
from tools.checks.plain_json import MAX_BYTES, NAME, SCORES, Submission, parse
from tools.checks.score import check_score
from tools.checks.script import Code
from tools.checks.seed_logs import SeedLog
from tools.say import UsageError

SAID = "claim"  # what a finding calls it
SIZES = dict.fromkeys(CODE_CLAIMS, "code_bytes")  # and where a log tells them
SIZES |= dict.fromkeys((*TOTAL_CLAIMS, "artifact_bytes"), "total_bytes")


def read_claims(words: Sequence[str]) -> Submission | None:
    """1.0810 (a val_bpb), NAME=NUMBER, or a file as submission.json; all of them together."""
    fields: dict[str, Any] = {}
    for word in words:
        told = _of_file(Path(word)) if Path(word).is_file() else _of_word(word)
        if twice := fields.keys() & told.keys():
            raise UsageError(f"--claim {word}: {min(twice)} is claimed twice")
        fields |= told
    return Submission(fields=fields) if words else None


def check_claims(claims: Submission, logs: Sequence[SeedLog]) -> list[Finding]:
    """The scores are the mean of the logs' last lines, or each its seed's; a size is that of a log;
    the other numbers stand in them or follow from them.
    """
    sizes = {name: value for name, value in claims.fields.items() if name in SIZES}
    rest = {name: value for name, value in claims.fields.items() if name not in SIZES}
    claims = Submission(fields={"seeds": [log.log.seed for log in logs], **rest})
    folder = Folder(root=Path(), entries=())
    case = Case(folder=folder, submission=claims, logs=tuple(logs), others=(), code=Code())
    named = {names[0] for names, _ in claims.numbers()} - {"seeds"}
    of_score = {*SCORES, *(f"mean_{name}" for name in SCORES), "seed_results"}
    told = [_of_size(name, value, logs) for name, value in sizes.items()]
    if named & of_score:
        told += [one for one in check_score(case) if one.rule == "score"]
    if named - of_score or "seed_results" in named:
        told += check_numbers(case)
    return [replace(one, subject=one.subject.replace(NAME, SAID)) for one in told]


def _of_size(name: str, claim: Any, logs: Sequence[SeedLog]) -> Finding:
    """Code, or code and model, as the log of one seed counts them."""
    held = {getattr(log.log, SIZES[name]): log.name for log in reversed(logs)}
    known = sorted(size for size in held if size is not None)
    if claim in known:
        return found("numbers", "PASS", f"{SAID}: {name}", f"{claim:,}, by {held[claim]}")
    if not known:
        return found("numbers", "UNDECIDED", f"{SAID}: {name}", f"{claim} is told by no log")
    said = f"{claim} is no size that the logs tell: {', '.join(f'{size:,}' for size in known[:4])}"
    return found("numbers", "FAIL", f"{SAID}: {name}", said)


def _of_word(word: str) -> dict[str, Any]:
    match = re.fullmatch(r"(?:([A-Za-z_]\w{0,80})=)?([-\d.eE]{1,40})", word)
    try:
        name, number = (match[1] or "val_bpb", match[2]) if match else ("", "")
        return parse(f'{{"{name}": {number}}}')
    except (ValueError, RecursionError):
        said = "expected a val_bpb as 1.0810, NAME=NUMBER, or a submission.json"
        raise UsageError(f"--claim {word}: {said}") from None


def _of_file(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size:,} bytes, more than {MAX_BYTES:,}")
    try:
        return parse(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not to be read as claims: {error!s:.200}") from None
