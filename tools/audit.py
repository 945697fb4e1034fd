"""Audit what others and we claim: scorers, logs, data, files; and the rule book behind all."""

from __future__ import annotations

import argparse

from tools.auditing import book, data, inside, logs, scaffold, scorer

SUBJECTS = {
    "logs": logs,
    "data": data,
    "scorer": scorer,
    "inside": inside,
    "scaffold": scaffold,
    "rules": book,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(title="subjects", required=True, metavar="SUBJECT")
    for name, module in SUBJECTS.items():
        summary = (module.__doc__ or "").split("\n", 1)[0]
        module.add_arguments(subjects.add_parser(name, help=summary, description=module.__doc__))
