"""Sweep formats, solvers and codecs over saved weights: bytes against what the outputs lose.

Nothing is trained. The error is of the outputs of each matrix on inputs whose Hessian is given -
best of a text that no solver saw: --held-out - and of the weights alone without one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from core.artifact.container import Artifact, write
from core.artifact.quant import CodecChoice
from core.artifact.solving import Calibration
from core.data.batches import Data
from core.score.scoring import Score
from tools.backends import choose
from tools.pack import add_subject, subject_of
from tools.packing import Subject
from tools.quantizers import (
    FORMATS_HELP,
    RULES,
    able,
    fisher_unit,
    fits,
    output_error,
    quant_of,
)
from tools.say import UsageError, note, print_json, require_folder
from tools.scoring_job import score_artifact
from tools.tensors import read_calibration

COLUMNS = (
    "format",
    "rule",
    "step_scale",
    "codec",
    "model_bytes",
    "bits",
    "output_error",
    "val_bpb",
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file: how it was made, its size, and what it lost."""

    format: str
    rule: str
    step_scale: float
    codec: str
    model_bytes: int
    bits: float  # of the file, a weight
    output_error: float
    val_bpb: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", nargs="?", metavar="RUN", help="a folder of runs/")
    parser.add_argument(
        "changes", nargs="*", metavar="quant.field=value", help="changes to the quant section"
    )
    add_subject(parser)
    parser.add_argument(
        "--held-out", type=Path, metavar="FILE", help="Hessians that errors are measured by"
    )
    parser.add_argument("--formats", default="int8,int6,int5,int4", help=FORMATS_HELP)
    parser.add_argument(
        "--rules", help=f"of {','.join(RULES)} (default: all that need nothing unknown)"
    )
    parser.add_argument(
        "--scales",
        default="1",
        help="step scales, as 0.7,1,1.4; Fisher steps have 1 where they take the bytes of gptq",
    )
    parser.add_argument("--codecs", default="rans", help="as zlib,rans,best")
    parser.add_argument("--data", help="shards: every file is scored on their validation split")
    parser.add_argument("--tokenizer", help="of these shards")
    parser.add_argument("--limit-tokens", type=int, default=0, help="score only the first N")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="a picture; pip install '.[plot]'")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run, backend=None, more_words="changes")


def run(args: argparse.Namespace) -> int:
    subject = subject_of(args)
    if bool(args.data) != bool(args.tokenizer):
        raise UsageError("--data and --tokenizer are given together")
    if args.data and subject.recipe is None:
        raise UsageError("--data scores a run's model; tensors of no recipe have none")
    if args.plot:
        require_folder(args.plot)
        _pyplot()
    unseen = read_calibration(args.held_out) if args.held_out else subject.known
    points = []
    for point in sweep(subject, unseen, args):
        points.append(point)
        note(_line(point))
    if args.plot:
        draw(points, args.plot)
    if args.json:
        print_json({"points": [vars(point) for point in points]})
    else:
        print(table(points), end="")
    return 0


def sweep(subject: Subject, unseen: Calibration, args: argparse.Namespace) -> Iterator[Point]:
    """Each quantizer is solved once, and written by every codec."""
    codecs, known = _listed(args.codecs, get_args(CodecChoice), "codec"), able(subject)
    rules = _listed(args.rules or ",".join(known), RULES, "rule")
    if wrong := [rule for rule in rules if rule not in known]:
        fisher = " with Fisher weights" * ("fisher" in wrong[0])
        raise UsageError(f"rule {wrong[0]} needs --hessians{fisher}")
    for form in _listed(args.formats, None, "format"):
        for rule in [rule for rule in rules if fits(form, rule)]:
            one = fisher_unit(subject, form) if "fisher" in rule else 1.0
            for scale in _scales(args.scales):
                quant = quant_of(subject.quant, form, rule, one * scale)
                artifact = subject.artifact(quant)
                lost = output_error(subject, artifact, unseen)
                bpb = _scored(artifact, args) if args.data else None
                for codec in codecs:
                    size = len(write(artifact, codec))
                    yield Point(
                        format=form,
                        rule=rule,
                        step_scale=quant.step_scale,
                        codec=codec,
                        model_bytes=size,
                        bits=8 * size / sum(tensor.size for tensor in artifact.tensors),
                        output_error=lost,
                        val_bpb=bpb,
                    )


def table(points: list[Point]) -> str:
    """As markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|--:|---|--:|--:|--:|--:|"]
    lines += [_line(point) for point in points]
    return "\n".join(lines) + "\n"


def draw(points: list[Point], path: Path) -> None:
    """Bits a weight against the error, and against the BPB where there is one."""
    plt = _pyplot()
    sides = ["output_error"] + ["val_bpb"] * any(point.val_bpb is not None for point in points)
    figure, axes = plt.subplots(1, len(sides), figsize=(6 * len(sides), 4), squeeze=False)
    for axis, side in zip(axes[0], sides, strict=True):
        for kind in sorted({(point.rule, point.codec) for point in points}):
            held = sorted((p.bits, getattr(p, side)) for p in points if (p.rule, p.codec) == kind)
            axis.plot(*zip(*held, strict=True), marker="o", label=" ".join(kind))
        axis.set_xlabel("bits a weight")
        axis.set_ylabel(side)
    axes[0][0].set_yscale("log")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install -e '.[plot]'") from None
    return pyplot


def _listed(words: str, known: Any, what: str) -> list[str]:
    found = [word.strip() for word in words.split(",") if word.strip()]
    for word in found:
        if known is not None and word not in known:
            raise UsageError(f"{what} {word!r} is unknown; choose from {', '.join(known)}")
    if not found:
        raise UsageError(f"name at least one {what}")
    return found


def _scales(words: str) -> list[float]:
    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise UsageError(f"--scales {words!r}: numbers with commas between them") from None


def _scored(artifact: Artifact, args: argparse.Namespace) -> float:
    where = Data(path=args.data, tokenizer=args.tokenizer)
    settings = Score(limit_tokens=args.limit_tokens)
    engine = choose(args.backend or "auto")
    fields = score_artifact(write(artifact, "zlib"), where, settings, engine, "fp32")
    return float(fields["val_bpb"])


def _line(point: Point) -> str:
    bpb = "" if point.val_bpb is None else f"{point.val_bpb:.5f}"
    cells = (point.format, point.rule, f"{point.step_scale:g}", point.codec)
    numbers = (f"{point.model_bytes:,}", f"{point.bits:.3f}", f"{point.output_error:.3e}", bpb)
    return f"| {' | '.join((*cells, *numbers))} |"
