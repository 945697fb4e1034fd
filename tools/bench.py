"""Time the training step against its reference form, alternating in one run.

--against SCRIPT times an external script instead: it runs unmodified on the recipe's shards, in a
process of its own, which needs --run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.arch.noise import random_bits, stream_of
from core.arch.params import flops_per_token
from core.data.shards import ShardWriter, TokenStream, open_split
from core.train.recipe import Recipe
from core.train.schedules import knobs
from tools.against import against, backend_of
from tools.against import table as table_against
from tools.backends import add_backend, choose, load
from tools.costs import peak_flops
from tools.recipes import add_recipe, read_recipe
from tools.say import UsageError, note, print_json

LOSS_GAP = 2e-3  # nats after the last round: both forms train the same model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "small")
    add_backend(parser)
    parser.add_argument("--rounds", type=int, default=9, help="steps of each form, alternating")
    parser.add_argument("--against", type=Path, metavar="SCRIPT", help="an external train_gpt.py")
    parser.add_argument(
        "--run", action="store_true", dest="starts", help="start that script: it is a stranger's"
    )
    parser.add_argument(
        "--seconds", type=float, default=1800.0, help="at most, for one run of that script"
    )
    parser.add_argument(
        "--peak-flops",
        type=float,
        metavar="F",
        help="FLOP/s that the device has at most, for the MFU (default: of its name, if known)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = read_recipe(args.words, args.default_recipe)
    if args.against is not None:
        return run_against(args, recipe)
    fields = bench(recipe, choose(args.backend), args.rounds, args.peak_flops)
    if args.json:
        print_json(fields)
    else:
        print(table(fields))
    return 0 if fields["loss_gap"] <= LOSS_GAP else 1


def run_against(args: argparse.Namespace, recipe: Recipe) -> int:
    if not args.starts:
        raise UsageError(f"--against would start {args.against}, a stranger's script; add --run")
    backend = backend_of(args.against) if args.backend == "auto" else args.backend
    fields = against(args.against, recipe, choose(backend), args.rounds, args.seconds)
    if args.json:
        print_json(fields)
    else:
        print(table_against(fields))
    return 0


def bench(recipe: Recipe, backend: str, rounds: int, peak: float | None = None) -> dict[str, Any]:
    """Medians of each form and of their ratios, on shards of random tokens of the recipe's shapes.

    peak: FLOP/s of the device at most; None: by its name.
    """
    group = load(backend, "distributed").Solo()
    with random_shards(recipe) as stream:
        feeder = load(backend, "feeder").Feeder(stream, recipe, group)
        own = load(backend, "loop").Trainer(recipe, group)
        peak_bytes = peak_bytes_of(own, feeder)
        reference = load(backend, "reference").ReferenceTrainer(recipe, group)
        times = timed({"reference form": reference, "this project": own}, feeder, rounds)
    named = {"backend": backend, "device": str(group.device), "device_name": group.device_name()}
    fields = result(recipe, named, times)
    most = peak or peak_flops(group.device_name())
    flops = flops_per_token(recipe.arch) * fields["tokens_per_s"]
    return {**fields, "peak_memory_bytes": peak_bytes, "mfu": flops / most if most else None}


def peak_bytes_of(trainer: Any, feeder: Any) -> int | None:
    """What two steps hold of the device's memory, no other form beside them; then undone."""
    before = trainer.snapshot()
    for step in range(2):
        float(trainer.step(feeder.batch(step), knobs(trainer.recipe, step, 0.0)))
    found: int | None = trainer.group.peak_bytes()
    trainer.restore(before)
    return found


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of each round by form, of feeding, and each form's last loss."""

    steps: dict[str, list[float]]
    feeding: list[float]
    losses: dict[str, float]


def timed(forms: dict[str, Any], feeder: Any, rounds: int) -> Times:
    """A round is a step of each form on the same batch."""
    spent: dict[str, list[float]] = {name: [] for name in forms}
    feeding: list[float] = []
    losses: dict[str, float] = {}
    for step in range(rounds + 1):
        for name, trainer in in_turn(forms, step):
            started = time.perf_counter()
            batch = feeder.batch(step)
            fed = time.perf_counter()
            losses[name] = float(trainer.step(batch, knobs(trainer.recipe, step, 0.0)))
            done = time.perf_counter()
            if step:  # the first one compiles
                spent[name].append(done - fed)
                feeding.append(fed - started)
        note(f"round {step} of {rounds}")
    return Times(steps=spent, feeding=feeding, losses=losses)


def in_turn(forms: dict[str, Any], step: int) -> list[tuple[str, Any]]:
    """A B, then B A: neither is always the one that comes second."""
    pairs = list(forms.items())
    return pairs if step % 2 else pairs[::-1]


@contextmanager
def random_shards(recipe: Recipe) -> Iterator[TokenStream]:
    """Memory-mapped, as in a run: what is fed is read from files."""
    count = 4 * recipe.data.train_batch_tokens + 1
    bits = random_bits(recipe.seed, stream_of("bench"), count)
    tokens = (bits % np.uint64(recipe.arch.vocab_size)).astype(np.uint16)
    with TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), "fineweb_train") as writer:
            writer.write(tokens)
        yield open_split(Path(folder), "train")


def result(recipe: Recipe, named: dict[str, str], times: Times) -> dict[str, Any]:
    """Medians, as fields; `named` says what ran."""
    reference_s, own_s = times.steps["reference form"], times.steps["this project"]
    median_s = statistics.median(own_s)
    return {
        **named,
        "machine": platform.machine(),
        "recipe": recipe.name,
        "precision": recipe.precision,
        "compile": recipe.compile,
        "train_batch_tokens": recipe.data.train_batch_tokens,
        "rounds": len(own_s),
        "reference_ms": 1000 * statistics.median(reference_s),
        "step_ms": 1000 * median_s,
        "ratio": statistics.median(r / o for r, o in zip(reference_s, own_s, strict=True)),
        "tokens_per_s": recipe.data.train_batch_tokens / median_s,
        "feeding_share": statistics.median(times.feeding) / median_s,
        "loss_gap": abs(times.losses["this project"] - times.losses["reference form"]),
    }


def table(fields: dict[str, Any]) -> str:
    """A row of markdown with its head."""
    peak_bytes, mfu = fields["peak_memory_bytes"], fields["mfu"]
    cells = {
        "engine": f"{fields['backend']} on {fields['device']}",
        "recipe": f"{fields['recipe']}, {fields['precision']}, compile {fields['compile']}",
        "tokens a step": f"{fields['train_batch_tokens']:,}",
        "reference form ms": f"{fields['reference_ms']:.0f}",
        "this project ms": f"{fields['step_ms']:.0f}",
        "ratio": f"{fields['ratio']:.2f}",
        "tokens/s": f"{fields['tokens_per_s']:,.0f}",
        "peak memory MB": "-" if peak_bytes is None else f"{peak_bytes / 1e6:,.0f}",
        "MFU": "-" if mfu is None else f"{mfu:.1%}",
        "feeding": f"{fields['feeding_share']:.2%}",
        "loss gap": f"{fields['loss_gap']:.0e}",
    }
    lines = ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
    return "\n".join([*lines, "| " + " | ".join(cells.values()) + " |"])
