"""Test what a scorer does, dynamically: streams of which something is changed, and what moves.

A packed model of ours, a small random one (--random), or with --run any Python file that has the
two functions which `golf audit scaffold` writes. docs/audit.md says what each test shows.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.noise import stream_of, uniform
from core.arch.spec import BOS
from core.data.findings import Finding
from core.data.shards import open_split
from core.data.tokenizer import open_tokenizer
from core.score.auditing import audit
from core.score.case import TOLERANCE_NATS, Case
from core.score.plays import Ids, Play, plan
from core.score.protocols import ISOLATES, Protocol
from core.score.scoring import Score
from tools.auditing.access import check_access, unwatched
from tools.auditing.inside import check_inside
from tools.auditing.ours import Ours, open_ours, play_ours
from tools.auditing.report import as_fields, as_markdown, as_text
from tools.auditing.stranger import Request, play_stranger
from tools.backends import add_backend, choose
from tools.say import UsageError, print_json
from tools.score import add_adaptation, add_protocol, with_numbers

TOKENS, VOCAB_SIZE, SECONDS = 1024, 1024, 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", type=Path, nargs="?", help="a model.bin, or a SCORER.py")
    parser.add_argument("--random", action="store_true", help="a small model of random weights")
    parser.add_argument(
        "--run", action="store_true", dest="starts", help="run SCORER.py: it is a stranger's"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="shards: the text is theirs")
    parser.add_argument("--tokenizer", type=Path, metavar="MODEL", help="of the shards")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"of the text ({TOKENS})")
    parser.add_argument(
        "--vocab-size", type=int, default=VOCAB_SIZE, help="of a made-up text, without --data"
    )
    parser.add_argument("--flips", type=int, default=12, help="places that are changed (12)")
    parser.add_argument("--asks", type=int, default=256, help="distributions asked for (256)")
    parser.add_argument("--seed", type=int, default=0, help="of the places (0)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE_NATS,
        help=f"nats that mean nothing: kernels depend on shapes ({TOLERANCE_NATS:g}; 0: equal)",
    )
    parser.add_argument("--isolated", action="store_true", help="SCORER.py claims it: documents")
    parser.add_argument(
        "--allow", action="append", type=Path, default=[], metavar="PATH", help="it may read this"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of SCORER.py, at most ({SECONDS:.0f})"
    )
    add_backend(parser)
    parser.add_argument("--precision", choices=("fp32", "cast", "autocast"), default="fp32")
    parser.add_argument("--batch", type=int, default=4, help="windows a pass (4)")
    add_protocol(parser)
    add_adaptation(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shown.add_argument("--markdown", action="store_true", help="a report for a review thread")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    _check(args)
    text = _text(args)
    findings, about = (_stranger if _is_script(args) else _ours)(args, text)
    findings += _held(args)
    title = f"Audit of the scorer {about['subject']}"
    about |= {"tokens": len(text.tokens), "vocab_size": text.vocab_size, "text": text.told}
    about |= {"tolerance_nats": args.tolerance, "flips": args.flips, "seed": args.seed}
    if args.json:
        print_json(as_fields(findings, about))
    else:
        print(as_markdown(findings, title, about) if args.markdown else as_text(findings))
    return int(any(one.status == "FAIL" for one in findings))


@dataclass(frozen=True, kw_only=True, eq=False)
class Text:
    """What is scored; `real`: from validation shards."""

    tokens: Ids
    vocab_size: int
    real: bool
    told: str


def _check(args: argparse.Namespace) -> None:
    if (args.subject is None) == (not args.random):
        raise UsageError("name one scorer: a model.bin, a SCORER.py, or --random")
    if _is_script(args) and not args.starts:
        raise UsageError(f"{args.subject} is code: --run runs it, in a process of its own")
    if args.starts and not _is_script(args):
        raise UsageError("--run is for a SCORER.py; a model.bin is read as data")
    if (args.data is None) != (args.tokenizer is None):
        raise UsageError("--data and --tokenizer belong together")
    if args.isolated and not _is_script(args):
        raise UsageError("--isolated is a SCORER.py's claim; of a model --protocol docs is one")
    if not args.tolerance >= 0 or not args.seconds > 0:
        raise UsageError(f"--tolerance {args.tolerance:g}, --seconds {args.seconds:g}: too small")


def _is_script(args: argparse.Namespace) -> bool:
    return args.subject is not None and args.subject.suffix == ".py"


def _text(args: argparse.Namespace) -> Text:
    if args.data is None:
        tokens = made_up(args.tokens, args.vocab_size, args.seed)
        return Text(tokens=tokens, vocab_size=args.vocab_size, real=False, told="made up")
    stream = open_split(args.data, "val")
    tokens = stream.slice(0, min(args.tokens, len(stream))).astype(np.int32)
    vocab_size = open_tokenizer(str(args.tokenizer)).vocab_size
    told = f"the first {len(tokens):,} validation tokens of {args.data}"
    return Text(tokens=tokens, vocab_size=vocab_size, real=True, told=told)


def made_up(count: int, vocab_size: int, seed: int) -> Ids:
    """Documents of usual and rare tokens, of which each passage comes twice: caches have work."""
    if count < 16 or vocab_size < 4:
        raise UsageError(f"--tokens {count}, --vocab-size {vocab_size}: expected 16 and 4 at least")
    drawn = uniform(seed, stream_of("text"), (count,))
    tokens = (2 + drawn**3 * (vocab_size - 2)).astype(np.int32)
    passage = max(4, count // 16)
    for start in range(0, count - 2 * passage, 3 * passage):
        tokens[start + passage : start + 2 * passage] = tokens[start : start + passage]
    tokens[:: max(8, count // 5)] = BOS
    return tokens


def _held(args: argparse.Namespace) -> list[Finding]:
    """What of all validation text lies in the model's file, or in the script's folder."""
    if args.data is None or args.subject is None:
        return []
    place = args.subject.resolve().parent if _is_script(args) else args.subject
    return check_inside(place, args.data, open_tokenizer(str(args.tokenizer)))


def _stranger(args: argparse.Namespace, text: Text) -> tuple[list[Finding], dict[str, Any]]:
    request = Request(
        script=args.subject,
        seconds=args.seconds,
        readable=(*args.allow, *([args.tokenizer] if args.tokenizer else [])),
        refused=(args.data,) if args.data else (),
    )
    plays = _plays(args, text)
    answers, watched = play_stranger(request, plays)
    name = args.subject.name
    access = check_access(name, watched)
    case = Case(
        subject=name,
        plays=plays,
        answers=answers,
        vocab_size=text.vocab_size,
        tolerance_nats=args.tolerance,
        isolates=args.isolated,
        real=text.real,
    )
    about = {"subject": name, "isolation": watched.isolation}
    if case.base.error and any(one.status == "FAIL" for one in access):
        about["ended"] = case.base.error  # what it reached for is what it is known by
        return access, about
    return [*audit(case), *access], about


def _ours(args: argparse.Namespace, text: Text) -> tuple[list[Finding], dict[str, Any]]:
    try:
        settings = Score(
            protocol=args.protocol, stride=args.stride, seq_len=args.seq_len, adapt=args.adapt
        )
        how = with_numbers(settings, args.adapt_set).adaptation
    except ValueError as error:
        raise UsageError(str(error)) from None
    protocol = settings.windows_by
    backend = choose(args.backend)
    ours = open_ours(args.subject, text.vocab_size, backend, args.precision, args.seed)
    plays = _plays(args, text)
    case = Case(
        subject=ours.name,
        plays=plays,
        answers=play_ours(ours, plays, protocol, args.batch, how),
        vocab_size=text.vocab_size,
        tolerance_nats=args.tolerance,
        isolates=args.protocol in ISOLATES and (how is None or how.isolates),
        by_document=how is not None and how.per_document,
        told_length=how is not None and how.descends,
        real=text.real,
    )
    said = _protocol(ours, protocol) + (f", {how.label()}" if how else "")
    about = {"subject": ours.name, "backend": backend, "protocol": said}
    return [*audit(case), *unwatched(ours.name)], about


def _plays(args: argparse.Namespace, text: Text) -> list[Play]:
    try:
        return plan(text.tokens, text.vocab_size, flips=args.flips, asks=args.asks, seed=args.seed)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _protocol(ours: Ours, protocol: Protocol) -> str:
    length = protocol.length(ours.spec.seq_len)
    return f"{protocol.name}, windows of {length}"
