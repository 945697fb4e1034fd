"""Time the training step against its reference form, alternating in one run.

--against SCRIPT times an external script instead: it runs unmodified on the recipe's shards, in a
process of its own, which needs --run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.noise import random_bits, stream_of
from core.data.shards import TokenStream
from core.train.recipe import Recipe
from core.train.schedules import knobs
from tools.against import against, backend_of
from tools.against import table as table_against
from tools.backends import add_backend, choose, load
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
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = read_recipe(args.words, args.default_recipe)
    if args.against is not None:
        return run_against(args, recipe)
    fields = bench(recipe, choose(args.backend), args.rounds)
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


def bench(recipe: Recipe, backend: str, rounds: int) -> dict[str, Any]:
    """Medians of each form and of their ratios, on random tokens of the recipe's shapes."""
    loop, reference = load(backend, "loop"), load(backend, "reference")
    group = load(backend, "distributed").Solo()
    forms = {
        "reference form": reference.ReferenceTrainer(recipe, group),
        "this project": loop.Trainer(recipe, group),
    }
    feeder = load(backend, "feeder").Feeder(random_tokens(recipe), recipe, group)
    spent: dict[str, list[float]] = {name: [] for name in forms}
    feeding: list[float] = []
    losses: dict[str, float] = {}
    for step in range(rounds + 1):
        for name, trainer in in_turn(forms, step):
            started = time.perf_counter()
            batch = feeder.batch(step)
            fed = time.perf_counter()
            losses[name] = float(trainer.step(batch, knobs(recipe, step, 0.0)))
            done = time.perf_counter()
            if step:  # the first one compiles
                spent[name].append(done - fed)
                feeding.append(fed - started)
        note(f"round {step} of {rounds}")
    return result(recipe, backend, str(group.device), spent, feeding, losses)


def in_turn(forms: dict[str, Any], step: int) -> list[tuple[str, Any]]:
    """A B, then B A: neither is always the one that comes second."""
    pairs = list(forms.items())
    return pairs if step % 2 else pairs[::-1]


def random_tokens(recipe: Recipe) -> TokenStream:
    count = 4 * recipe.data.train_batch_tokens + 1
    bits = random_bits(recipe.seed, stream_of("bench"), count)
    return TokenStream([(bits % np.uint64(recipe.arch.vocab_size)).astype(np.uint16)])


def result(
    recipe: Recipe,
    backend: str,
    device: str,
    spent: dict[str, list[float]],
    feeding: list[float],
    losses: dict[str, float],
) -> dict[str, Any]:
    reference_s, own_s = spent["reference form"], spent["this project"]
    median_s = statistics.median(own_s)
    return {
        "backend": backend,
        "device": device,
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
        "feeding_share": statistics.median(feeding) / median_s,
        "loss_gap": abs(losses["this project"] - losses["reference form"]),
    }


def table(fields: dict[str, Any]) -> str:
    """A row of markdown with its head."""
    cells = {
        "engine": f"{fields['backend']} on {fields['device']}",
        "recipe": f"{fields['recipe']}, {fields['precision']}, compile {fields['compile']}",
        "tokens a step": f"{fields['train_batch_tokens']:,}",
        "reference form ms": f"{fields['reference_ms']:.0f}",
        "this project ms": f"{fields['step_ms']:.0f}",
        "ratio": f"{fields['ratio']:.2f}",
        "tokens/s": f"{fields['tokens_per_s']:,.0f}",
        "feeding": f"{fields['feeding_share']:.2%}",
        "loss gap": f"{fields['loss_gap']:.0e}",
    }
    lines = ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
    return "\n".join([*lines, "| " + " | ".join(cells.values()) + " |"])
