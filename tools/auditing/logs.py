"""Any number of logs and records folders, one row a log, and what is wrong."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.data.findings import Finding
from core.score.book import open_questions, ruled
from core.score.rules import found
from tools.auditing.claims import check_claims, read_claims
from tools.auditing.log_rules import audit_log, logged_size, more, one_text, tails
from tools.auditing.places import Places, find_places, is_log, open_log
from tools.auditing.verdicts import as_markdown, as_text, failed, in_order, worst
from tools.checks.bytes import check_bytes
from tools.checks.case import open_case
from tools.checks.logs import check_logs
from tools.checks.plain_json import Submission
from tools.checks.score import check_score
from tools.checks.script import SCRIPT
from tools.checks.seed_logs import SeedLog
from tools.say import print_json

# Of `golf check` on a records folder: what its logs and its submission.json tell together.
OF_RECORDS = {
    *("json", "logs", "seeds", "configuration", "identity", "score", "numbers", "whole split"),
    *("lossless", "implied bytes", "training time", "evaluation time", "hardware"),
    *("model bytes", "cap", "foreign data"),
}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A row for every log, and all findings, what fails first."""

    rows: list[dict[str, Any]]
    findings: list[Finding]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="logs, run folders, records folders, patterns"
    )
    parser.add_argument(
        "--claim",
        action="append",
        default=[],
        metavar="CLAIM",
        help="what is said of these logs together: 1.0810 (a val_bpb), NAME=NUMBER, or a "
        "submission.json; may be given again",
    )
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="one JSON object on stdout")
    told.add_argument("--markdown", action="store_true", help="a report for a review thread")
    parser.set_defaults(run=run_logs, more_words="paths")


def run_logs(args: argparse.Namespace) -> int:
    audit = audit_logs(args.paths, read_claims(args.claim))
    if args.json:
        print_json(
            {
                "passes": not failed(audit.findings),
                "findings": [asdict(one) for one in audit.findings],
                "logs": audit.rows,
            }
        )
    elif args.markdown:
        print(as_markdown("Audit of logs", audit.rows, audit.findings))
    else:
        print(as_text(audit.rows, audit.findings))
    return int(failed(audit.findings))


def audit_logs(words: Sequence[str], claims: Submission | None = None) -> Audit:
    """ValueError where the words name no log. claims: of all of them."""
    places = find_places(words)
    asked = {Path(word) for word in words}
    rows: list[dict[str, Any]] = []
    findings: list[Finding] = []
    recorded = [pair for root in places.records for pair in _of_record(root, findings)]
    rows += [row(log, mine) for log, mine in recorded]
    alone = []
    for log in _opened(places):
        if is_log(log) or Path(log.name) in asked:
            mine = audit_log(log)
            findings += mine
            rows.append(row(log, mine))
            alone.append(log if claims else _without_text(log))
    if not rows and not places.records:
        raise ValueError(f"{', '.join(words)}: no logs; expected *.log, *.txt or run folders")
    logs = [*(log for log, _ in recorded), *alone]
    findings += [*_of_folders(alone), *tails(logs)]
    findings += check_claims(claims, logs) if claims else []
    findings += open_questions("logs")
    return Audit(rows=rows, findings=in_order(findings))


def _without_text(log: SeedLog) -> SeedLog:
    """A hundred logs are more than need be held at once."""
    return replace(log, data=b"", log=replace(log.log, embedded_source=None))


def row(log: SeedLog, findings: Sequence[Finding]) -> dict[str, Any]:
    """What the table shows of a log."""
    told, score = log.log, log.log.score
    implied = told.implied_bytes
    return {
        "log": log.name,
        "seed": told.seed,
        "steps": told.last_step,
        "val_loss": score.val_loss if score else None,
        "val_bpb": score.val_bpb if score else None,
        "tokens": told.tokens,
        "implied_bytes": None if implied is None else round(implied),
        "artifact_bytes": told.total_bytes,
        "train_s": None if told.train_time_ms is None else round(told.train_time_ms / 1000.0, 3),
        "eval_s": None if log.eval_ms is None else round(log.eval_ms / 1000.0, 3),
        "status": worst(findings),
    }


def _opened(places: Places) -> Iterator[SeedLog]:
    for path in places.logs:
        yield open_log(path)


def _of_record(root: Path, findings: list[Finding]) -> list[tuple[SeedLog, list[Finding]]]:
    """The logs of a records folder with what is said of each; `findings` gets everything."""
    case, told = open_case(root)
    told += [*check_bytes(case), *check_logs(case), *check_score(case)]
    mine = [one for one in told if one.rule in OF_RECORDS]
    if case.folder.file(SCRIPT) is None:  # logs and their claims, without the code
        mine = [one for one in mine if one.rule != "cap"]
        mine += [logged_size(log) for log in case.logs]
    for log in case.logs:
        mine += more(log)
    groups = one_text(case.logs)
    if len(groups) > 1:
        mine.append(ruled("B15", "FAIL", ".", _texts(groups)))
    prefix = root.name or root.resolve().name
    findings += [replace(one, subject=_under(prefix, one.subject)) for one in mine]
    rows = []
    for log in (*case.logs, *case.others):
        about = [one for one in mine if one.subject in (log.name, ".")]
        rows.append((replace(log, name=f"{prefix}/{log.name}"), about))
    return rows


def _of_folders(logs: Sequence[SeedLog]) -> Iterator[Finding]:
    """What logs of one folder say against one another."""
    folders: dict[Path, list[SeedLog]] = defaultdict(list)
    for log in logs:
        folders[Path(log.name).parent].append(log)
    for folder, inside in folders.items():
        groups = one_text(inside)
        if len(groups) > 1:
            yield ruled("B15", "UNDECIDED", folder, _texts(groups))
        yield from _twice(folder, inside)


def _twice(folder: Path, logs: Sequence[SeedLog]) -> Iterator[Finding]:
    """Two seeds do not end in the same score, to its eight digits."""
    ends: dict[tuple[float, float], list[SeedLog]] = defaultdict(list)
    for log in logs:
        if (score := log.log.score) is not None and round(score.val_bpb, 4) != score.val_bpb:
            ends[score.val_loss, score.val_bpb].append(log)
    for (_, bpb), same in ends.items():
        seeds = {log.log.seed for log in same}
        if len(seeds) > 1:
            said = f"{len(same)} logs of {len(seeds)} seeds end in {bpb:.8f}: one run, told twice?"
            yield found("seeds", "FAIL", folder, said)


def _texts(groups: list[tuple[float, str]]) -> str:
    shown = ", ".join(f"{implied:,.0f} bytes ({name})" for implied, name in groups[:4])
    return f"scores over {len(groups)} different texts: {shown}"


def _under(prefix: str, subject: str) -> str:
    return prefix if subject == "." else f"{prefix}/{subject}"
