"""Check a records folder, anybody's, against the task's rules: PASS, FAIL or UNDECIDED for each.

Everything in the folder is read as data, within bounds; nothing is executed. Starting the script,
in a copy of the folder and isolated, takes --run.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.data.findings import Finding
from core.score.rules import RULES, found
from tools.checks.bytes import check_bytes, itemise, sum_of
from tools.checks.case import Case, open_case
from tools.checks.git import check_diff
from tools.checks.logs import check_logs
from tools.checks.report import as_markdown, as_text
from tools.checks.score import check_score
from tools.checks.start import check_start
from tools.say import UsageError, print_json

SECONDS = 120.0
A_RULE = 60  # findings of one rule that are told
STATUSES = ("FAIL", "UNDECIDED", "PASS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="records/<track>/<date>_<name>")
    parser.add_argument("--diff", metavar="BASE", help="what HEAD changes since it left BASE")
    parser.add_argument(
        "--run", action="store_true", dest="starts", help="start the script: it is a stranger's"
    )
    parser.add_argument("--data", type=Path, metavar="SHARDS", help="for --run")
    parser.add_argument("--tokenizer", type=Path, metavar="MODEL", help="for --run")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"at most, for --run ({SECONDS:.0f})"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shown.add_argument("--markdown", action="store_true", help="a report for a review thread")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if (args.data or args.tokenizer) and not args.starts:
        raise UsageError("--data and --tokenizer are for the script that --run starts; add --run")
    if not args.seconds > 0:
        raise UsageError(f"--seconds {args.seconds:g} must be positive")
    if not args.folder.is_dir():
        raise UsageError(f"{args.folder}: no such folder; expected a records folder")
    case, findings = check(args.folder)
    findings.append(check_diff(args.folder, args.diff))
    started = (args.starts, args.seconds, args.data, args.tokenizer)
    findings.append(check_start(case.folder, *started))
    findings = in_order(findings)
    if args.json:
        print_json(report(case, findings))
    elif args.markdown:
        print(as_markdown(case, findings, itemise(case)))
    else:
        print(as_text(findings, itemise(case)))
    return int(any(one.status == "FAIL" for one in findings))


def check(root: Path) -> tuple[Case, list[Finding]]:
    """What the folder alone tells."""
    case, findings = open_case(root)
    return case, in_order([*findings, *check_bytes(case), *check_logs(case), *check_score(case)])


def in_order(findings: list[Finding]) -> list[Finding]:
    """In the order of the rules, what fails first; of one rule so many as anybody reads."""
    ordered: list[Finding] = []
    for rule in RULES:
        mine = [one for one in findings if one.rule == rule.id]
        mine.sort(key=lambda one: STATUSES.index(one.status))
        ordered += mine[:A_RULE]
        if (rest := len(mine) - A_RULE) > 0:
            status = mine[A_RULE].status
            ordered.append(found(rule.id, status, ".", f"{rest:,} more findings"))
    return ordered


def report(case: Case, findings: list[Finding]) -> dict[str, Any]:
    """A check as JSON data."""
    items = itemise(case)
    return {
        "folder": case.folder.root.resolve().name,
        "record": case.record,
        "passes": not any(one.status == "FAIL" for one in findings),
        "findings": [asdict(one) for one in findings],
        "code_bytes": sum_of(items, "counted"),
        "unclear_bytes": sum_of(items, "unclear"),
        "files": [asdict(item) for item in items],
        "seeds": [log.log.seed for log in case.logs],
    }
