"""Time the training step against its reference form, and the suites of all that must be fast.

Every ratio is of alternating blocks in one process, after a soak and after the first form was timed
against itself. --against SCRIPT times an external script instead: it runs unmodified on the
recipe's shards, in a process of its own, which needs --run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.against import against, backend_of
from tools.against import table as table_against
from tools.backends import add_backend, choose, load
from tools.benching.blocks import CLOCKS, Rules
from tools.benching.hardware import hardware
from tools.benching.job import Job, Row
from tools.benching.report import holds, measured, tables
from tools.benching.steps import device_kind
from tools.benching.suites import SUITES
from tools.recipes import add_recipe, read_recipe, usage_errors
from tools.say import UsageError, print_json, require_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "small")
    add_backend(parser)
    add_protocol(parser)
    parser.add_argument(
        "--suite",
        choices=("auto", *SUITES),
        help="rows of a suite instead of one step; auto: that of the device at hand",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny shapes, not compiled: does it run?"
    )
    parser.add_argument("--profile", type=Path, metavar="DIR", help="profile the step into DIR")
    parser.add_argument("--against", type=Path, metavar="SCRIPT", help="an external train_gpt.py")
    parser.add_argument(
        "--run", action="store_true", dest="starts", help="start that script: it is a stranger's"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of that script and this, in turn")
    parser.add_argument(
        "--seconds", type=float, default=1800.0, help="at most, for one run of that script"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write that object there too")
    parser.set_defaults(run=run)


def add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--blocks", type=int, default=5, help="of each form, alternating")
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument(
        "--soak", type=float, default=5.0, metavar="S", help="seconds before anything counts"
    )
    parser.add_argument(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="process: the work of this process's threads, where other work shares the processor",
    )
    parser.add_argument(
        "--peak-flops",
        type=float,
        metavar="F",
        help="FLOP/s that the device has at most, for the MFU (default: of its name, if known, "
        "else those of a product that is measured)",
    )


def run(args: argparse.Namespace) -> int:
    if args.out is not None:
        require_folder(args.out)
    if args.against is not None:
        fields = run_against(args)
        return tell(args, fields, table_against(fields), good=True)
    fields = bench(jobs(args))
    return tell(args, fields, tables(fields), good=holds(fields["rows"]))


def tell(args: argparse.Namespace, fields: dict[str, Any], shown: str, good: bool) -> int:
    if args.out is not None:
        args.out.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if args.json:
        print_json(fields)
    else:
        print(shown)
    return 0 if good else 1


def run_against(args: argparse.Namespace) -> dict[str, Any]:
    if not args.starts:
        raise UsageError(f"--against would start {args.against}, a stranger's script; add --run")
    backend = backend_of(args.against) if args.backend == "auto" else args.backend
    recipe = read_recipe(args.words, args.default_recipe)
    now = CLOCKS[args.clock]
    fields = against(args.against, recipe, choose(backend), args.rounds, args.seconds, now)
    return {"hardware": hardware([backend]), **fields}


def bench(wanted: Iterable[Job]) -> dict[str, Any]:
    """The rows, and what they were measured on."""
    rows = list(wanted)
    backends = sorted({job.row.backend for job in rows} - {"numpy"})
    found = hardware(backends)
    return {"hardware": found, "rows": measured(rows)}


def jobs(args: argparse.Namespace) -> list[Job]:
    """Of the suite, or of the step of the recipe that is named."""
    with usage_errors():
        rules = Rules(
            blocks=args.blocks, steps=args.steps, soak_s=args.soak, now=CLOCKS[args.clock]
        )
    rows: tuple[Row, ...]
    if args.suite is None:
        recipe, backend = read_recipe(args.words, args.default_recipe), choose(args.backend)
        words = tuple(args.words or (args.default_recipe,))
        title = f"{backend}, {recipe.name}, {recipe.precision}, compile {recipe.compile}"
        rows = (Row(title=title, kind="step", backend=backend, words=words),)
    else:
        if args.words:
            raise UsageError(f"--suite has recipes of its own, found {' '.join(args.words)}")
        rows = SUITES[at_hand(args.backend) if args.suite == "auto" else args.suite]
    rest = {"tiny": args.tiny, "peak_flops": args.peak_flops, "profile": args.profile}
    return [Job(row=row, rules=rules, **rest) for row in rows]


def at_hand(wanted: str) -> Any:
    """The suite of this machine's device."""
    backend = choose(wanted)
    kind = device_kind(load(backend, "distributed").Solo().device)
    return "mlx" if backend == "mlx" else "cuda" if kind == "cuda" else "cpu"
