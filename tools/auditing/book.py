"""The rule book, with dates, sources and what nobody has decided."""

from __future__ import annotations

import argparse

from core.arch.fields import closest
from core.score.book import BOOK, entry
from tools.say import UsageError, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="as B7, L12, Q4 or 'implied bytes' (all of them)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run_rules)


def run_rules(args: argparse.Namespace) -> int:
    if args.id is not None and args.id not in BOOK:
        raise UsageError(f"no rule is called {args.id!r}; {closest(args.id, BOOK.keys())}")
    rows = [entry(BOOK[id]) for id in ([args.id] if args.id else BOOK)]
    if args.json:
        print_json({"rules": rows})
        return 0
    for row in rows:
        seen = f" [{', '.join(row['covers'] or row['rules'])}]" if row["covers"] else ""
        print(f"{row['id']:<16}  {row['status']:<9}  {row['text']}{seen}")
        print(f"{'':<29}{row['source']}{'; ' + row['date'] if row['date'] else ''}")
    return 0
