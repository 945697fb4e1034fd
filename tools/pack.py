"""Pack a run's saved weights again, by its recipe and the changes given; no training.

Or, with --tensors, the weights of any safetensors file; or to a number of bytes that code and
model together are to have.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.artifact.container import identity, read, write
from core.artifact.ledger import ledger, require_fits
from core.train.clock import BudgetClock
from tools.backends import add_backend, choose
from tools.packing import Subject, met, of_run, of_tensors, say_unknown, solver_of, why
from tools.say import UsageError, print_fields, print_json, require_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", nargs="?", metavar="RUN", help="a folder of runs/")
    parser.add_argument(
        "changes", nargs="*", metavar="quant.field=value", help="changes to the quant section"
    )
    add_subject(parser)
    parser.add_argument(
        "--target-bytes",
        type=int,
        metavar="N",
        help="choose quant.step_scale so that code and model have N bytes, or up to 2,000 fewer",
    )
    parser.add_argument(
        "--why",
        action="store_true",
        help="for each matrix, the bits a weight that steps by column, row or token may save",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where to write (default: RUN/model.bin, or RUN/repacked.bin with changes; "
        "beside a file of tensors, its name with .bin)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run, backend=None, more_words="changes")


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Beside a run's folder: whatever else says what is packed."""
    parser.add_argument(
        "--tensors",
        type=Path,
        metavar="FILE",
        help="any safetensors, in place of a run; its matrices have the format of quant.mlp",
    )
    parser.add_argument(
        "--hessians",
        type=Path,
        metavar="FILE",
        help="safetensors with the sum of x x^T of a matrix's inputs under its name; also "
        "NAME.fisher and NAME.counts, of its rows",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="measure the inputs on the recipe's training data, as a run does, and keep them in "
        "RUN/hessians.safetensors, where later commands find them",
    )
    parser.add_argument(
        "--code-bytes", type=int, metavar="N", help="of the code (default: the recipe's bundle)"
    )
    add_backend(
        parser, "its device solves, and lab scores by it; without: numpy solves, auto scores"
    )


def subject_of(args: argparse.Namespace) -> Subject:
    """What the command line names, the engine among it."""
    if args.code_bytes is not None and args.code_bytes < 0:
        raise UsageError(f"--code-bytes {args.code_bytes} must not be negative")
    if args.calibrate and (args.hessians or args.tensors):
        raise UsageError("--calibrate measures a run's own; --hessians and --tensors name others")
    if args.tensors:
        changes = [word for word in (args.run_folder, *args.changes) if word]
        found = of_tensors(args.tensors, changes, args.hessians, args.code_bytes)
    elif args.run_folder is None:
        raise UsageError("name a folder of runs/, or weights with --tensors FILE")
    else:
        backend = choose(args.backend or "auto") if args.calibrate else ""
        folder = Path(args.run_folder)
        found = of_run(folder, args.changes, args.hessians, args.code_bytes, backend)
    return replace(found, solver=solver_of(args.backend and choose(args.backend)))


def run(args: argparse.Namespace) -> int:
    subject = subject_of(args)
    out = args.out or _default_out(args)
    require_folder(out)
    say_unknown(subject)
    clock = BudgetClock(time.perf_counter)
    quant = subject.quant
    if args.target_bytes is not None:
        with clock.phase("quantize"):
            quant, model = met(subject, args.target_bytes)
        artifact = read(model)
    else:
        with clock.phase("quantize"):
            artifact = subject.artifact(quant)
        with clock.phase("compress"):
            model = write(artifact, quant.codec)
    counts = ledger(model, subject.code(quant))
    out.write_bytes(model)
    fields: dict[str, Any] = {
        "file": str(out),
        "identity": identity(artifact),
        "model_bytes": counts.model_bytes,
        "artifact_bytes": counts.artifact_bytes,
        "margin_bytes": counts.margin_bytes,
        "code_bytes": counts.code_bytes,
        **({} if quant.step_scale == 1 else {"step_scale": quant.step_scale}),
        "bytes": dict(counts.rows),
        "phases_s": clock.phases(),
    }
    _print(fields, why(subject) if args.why else None, args.json)
    require_fits(counts)
    return 0


def _default_out(args: argparse.Namespace) -> Path:
    if args.tensors:
        return Path(args.tensors.with_suffix(".bin").name)
    changed = args.changes or args.target_bytes is not None or args.hessians
    return Path(args.run_folder) / ("repacked.bin" if changed else "model.bin")


def _print(fields: dict[str, Any], offers: list[dict[str, Any]] | None, as_json: bool) -> None:
    if as_json:
        print_json(fields if offers is None else {**fields, "why": offers})
        return
    if "step_scale" in fields:  # all its digits: it is to be given again
        fields = {**fields, "step_scale": f"{fields['step_scale']:g}"}
    print_fields(fields)
    if offers is None:
        return
    names = sorted({name for row in offers for name in row if name.endswith("_bits")})
    heads = "".join(f"{name.removesuffix('_bits'):>10}" for name in names)
    print(f"\n{'bits a weight that steps may save by':<48}{heads}")
    for row in offers:
        cells = "".join(f"{row[n]:>10.3f}" if n in row else " " * 10 for n in names)
        print(f"{row['name']:<34}{'x'.join(map(str, row['shape'])):>14}{cells}")
