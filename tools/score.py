"""Score an artifact: bits per byte over every target of a validation split, on either engine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from core.arch.fields import override
from core.data.batches import Data
from core.score.adaptation import Adapt
from core.score.protocols import ProtocolName
from core.score.resume import Task, state_name
from core.score.scoring import Score
from core.score.subsets import SubsetName
from tools.backends import add_backend, choose
from tools.environment import leads, variables
from tools.say import UsageError, note, print_fields, print_json
from tools.scoring_job import label, score_artifact

DEFAULT = Score()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="a model.bin")
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--tokenizer", required=True, help="the tokenizer of the shards")
    add_backend(parser)
    parser.add_argument("--precision", choices=("fp32", "cast", "autocast"), default="fp32")
    parser.add_argument("--batch", type=int, default=DEFAULT.batch, help="windows a pass")
    add_protocol(parser)
    add_adaptation(parser)
    parser.add_argument(
        "--subset",
        choices=get_args(SubsetName),
        default="full",
        help="a fixed part of the split, with a 95 %% interval for the whole",
    )
    parser.add_argument(
        "--limit-tokens", type=int, default=0, help="score only the first N targets: a subset"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="CHANGE",
        help="score with something changed, nothing trained: arch.rope_dims=0, arch.skips=none, "
        "weights.q_gain=1.0; may be given again",
    )
    parser.add_argument(
        "--allow-lossy",
        action="store_true",
        help="score a tokenizer that loses text (no byte fallback, case folding): every number "
        "says lossy",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="keep what is done in FILE and go on from it (default: a file beside the artifact)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        choices=get_args(ProtocolName),
        default=DEFAULT.protocol,
        help="windows that do not overlap, or slide; docs: none reaches across a document",
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=DEFAULT.stride,
        help=f"targets a window of the protocols that slide (default {DEFAULT.stride})",
    )
    parser.add_argument(
        "--seq-len", type=int, default=0, help="tokens a window (default: as many as in training)"
    )


def add_adaptation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapt",
        choices=get_args(Adapt),
        default=DEFAULT.adapt,
        help="learn from what is scored: sgd on all weights, lora for each document, or both",
    )
    parser.add_argument(
        "--adapt-set",
        action="append",
        default=[],
        metavar="CHANGE",
        help="a number of the adaptation: sgd.lr=0.002, lora.rank=8, phased.phases=1; may be given "
        "again",
    )


def run(args: argparse.Namespace) -> int:
    try:
        settings = Score(
            batch=args.batch,
            limit_tokens=args.limit_tokens,
            subset=args.subset,
            allow_lossy=args.allow_lossy,
            protocol=args.protocol,
            stride=args.stride,
            seq_len=args.seq_len,
            adapt=args.adapt,
        )
        settings = with_numbers(settings, args.adapt_set)
    except ValueError as error:
        raise UsageError(str(error)) from None
    fields = score_artifact(
        args.artifact.read_bytes(),
        Data(path=args.data, tokenizer=args.tokenizer),
        settings,
        choose(args.backend),
        args.precision,
        changes=args.set,
        place=lambda task: args.resume or beside(args.artifact, task),
    )
    if args.subset != "full" and fields["subset"] is None and leads(variables()):
        note(f"the split holds {fields['tokens']:,} targets: {args.subset} is all of it")
    if args.json and leads(variables()):
        print_json(fields)
    elif leads(variables()):
        print_fields(readable(fields))
    return 0


def with_numbers(settings: Score, changes: list[str]) -> Score:
    """The settings with each section.field=value of an adaptation that is on."""
    how = settings.adaptation
    parts = [] if how is None else [name for name in how.described() if name != "name"]
    for change in changes:
        if change.partition(".")[0] not in parts:
            held = ", ".join(parts) or "none: it is off"
            raise ValueError(f"--adapt-set {change}: expected SECTION.FIELD=value of {held}")
    return override(settings, changes, "the adaptation")


def beside(artifact: Path, task: Task) -> Path:
    """A file of its own for every scoring of an artifact."""
    return artifact.with_name(f"{artifact.name}.{state_name(task)}.score-state")


def readable(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields for people: every score carries its label."""
    subset, told = fields["subset"], None
    if subset:
        told = f"{subset['name']}: {subset['targets']:,} of {subset['of_targets']:,} targets"
        low, high = subset["val_bpb_low"], subset["val_bpb_high"]
        reach = "too few windows for an interval"
        if low is not None:
            reach = f"the full split's val_bpb is within {low:.4f} and {high:.4f} (95 %)"
        told = f"{told}, {reach}"
    said = label(subset and subset["name"], fields["modified"], bool(fields["lossy"]))
    scores = {
        name: f"{fields[name]:.8f}{said}"
        for name in ("val_loss", "val_bpb", "val_bpb_raw")
        if fields[name] is not None
    }
    lists = {name: ", ".join(fields[name]) or "none" for name in ("modified", "dropped")}
    told = told or "none: the full split"
    return {**fields, **scores, **lists, "subset": told, "lossy": fields["lossy"] or "no"}
