"""The golf command: parses, finds the verb, turns errors into sentences and exit codes.

0 ok, 1 failed check or run, 2 usage, 130 Ctrl-C. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from types import ModuleType

from tools import (
    audit,
    bench,
    bundle,
    check,
    compare,
    data,
    demo,
    doctor,
    explain,
    generate,
    inspect,
    lab,
    pack,
    plan,
    rehearse,
    score,
    submit,
    tokenizer,
    train,
    unpack,
)
from tools.environment import leads, leads_node, rank_of, variables
from tools.say import UsageError, complain

VERBS: dict[str, ModuleType] = {
    "demo": demo,
    "train": train,
    "score": score,
    "pack": pack,
    "lab": lab,
    "inspect": inspect,
    "unpack": unpack,
    "generate": generate,
    "bundle": bundle,
    "plan": plan,
    "rehearse": rehearse,
    "explain": explain,
    "data": data,
    "tokenizer": tokenizer,
    "doctor": doctor,
    "bench": bench,
    "compare": compare,
    "submit": submit,
    "check": check,
    "audit": audit,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code."""
    return guarded(parser(), arguments)


def parser() -> argparse.ArgumentParser:
    """All verbs. Building it loads neither torch nor mlx."""
    top = argparse.ArgumentParser(
        prog="golf", description="Parameter golf on two engines: train, pack and score."
    )
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, module in VERBS.items():
        summary = (module.__doc__ or "").split("\n", 1)[0]
        verb = verbs.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(verb)
        verb.add_argument("--debug", action="store_true", help="show tracebacks")
    return top


def guarded(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse and run; an error becomes a sentence, unless --debug. Of several ranks the first of
    each machine says what is wrong with the command, and every one what went wrong with itself.
    """
    environ = variables()
    first = leads(environ)
    with nullcontext() if first else redirect_stderr(StringIO()):
        args = parsed(top, arguments)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as by `| head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        usage = isinstance(error, UsageError)
        if leads_node(environ) or not usage:
            complain(f"{'' if first else f'rank {rank_of(environ)}: '}{error}")
        return 2 if usage else 1
    return code


def parsed(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The list of words that a verb takes may stand before, between and behind its options."""
    args, rest = top.parse_known_args(arguments)
    name: str = getattr(args, "more_words", "")
    if unknown := [word for word in rest if word.startswith("-") or not name]:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        setattr(args, name, [*getattr(args, name), *rest])
    return args


if __name__ == "__main__":
    sys.exit(main())
