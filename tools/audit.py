"""Audit a score: logs, the bytes of data, and the rule book that both are held to."""

from __future__ import annotations

import argparse

from tools.auditing.book import add_rules
from tools.auditing.data import add_data
from tools.auditing.logs import add_logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    add_logs(verbs)
    add_data(verbs)
    add_rules(verbs)
