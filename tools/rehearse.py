"""Rehearse a run on this machine's devices: every phase once in minutes, every budget extrapolated.

The project's own run with few steps, shared out among the recipe's stages, and few targets: what
breaks, breaks here. Compiled graphs are kept for the seeds that follow.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from core.data.tokenizer import open_tokenizer
from core.score.scoring import Validation
from core.train.corpus import open_corpus
from core.train.recipe import Recipe, to_json
from tools.backends import add_backend, choose
from tools.bundling.script import bundle, code_bytes
from tools.costs import planned_artifact_bytes
from tools.environment import of_several, variables
from tools.recipes import add_recipe, add_size, mac_memory_bytes, settle
from tools.rehearsing.budgets import Facts, budgets, fits, stage_fields, task_targets
from tools.rehearsing.launch import cached_files, caches, devices, launcher, start
from tools.rehearsing.pods import compared
from tools.rehearsing.seen import Seen, observe, warm_at_s
from tools.rehearsing.short import enough_targets, rehearsed
from tools.say import UsageError, note, print_json
from tools.train import free_run_id

STEPS = 20
Made = TypeVar("Made")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "baseline")
    add_size(parser)
    add_backend(parser)
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"of training, all stages (default {STEPS})"
    )
    parser.add_argument(
        "--nproc", type=int, help="processes, one a device (default: all of this machine's)"
    )
    parser.add_argument(
        "--targets", type=int, help="targets to score (default: some batches on every rank)"
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of compiled graphs (default: compile-cache in --runs)"
    )
    parser.add_argument("--runs", default="runs", help="folder of runs (default: runs)")
    parser.add_argument(
        "--once", action="store_true", help="do not start a second time, with the graphs kept"
    )
    parser.add_argument("--usd-per-hour", type=float, help="of all devices, for a seed's cost")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if of_several(variables()):
        raise UsageError("golf rehearse starts the ranks itself (--nproc): give it no launcher")
    for name in ("steps", "nproc", "targets"):
        if (asked := getattr(args, name)) is not None and asked < 1:
            raise UsageError(f"--{name} {asked}: expected at least 1")
    backend = choose(args.backend)
    given = {"scale": args.scale, "full": args.full, "memory_bytes": mac_memory_bytes()}
    recipe = settle(args.words, backend, {}, **given).recipe
    rehearsal = Rehearsal(
        recipe=recipe,
        backend=backend,
        nproc=args.nproc or devices(backend),
        runs=Path(args.runs),
        cache=caches(backend, args.cache, Path(args.runs)),
    )
    fields = rehearse(rehearsal, args.steps, args.targets, args.once)
    seed_s = fields["budgets"][-1]["value"]
    fields["seed_usd"] = args.usd_per_hour and round(seed_s / 3600 * args.usd_per_hour, 2)
    if args.json:
        print_json(fields)
    else:
        show(fields)
    over = [row["name"] for row in fields["budgets"] if row["status"] == "over budget"]
    if over:
        note(f"over budget on this machine: {', '.join(over)}")
    return 1 if over else 0


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Of what, where."""

    recipe: Recipe
    backend: str
    nproc: int
    runs: Path
    cache: dict[str, str]


def rehearse(
    asked: Rehearsal, steps: int, targets: int | None = None, once: bool = False
) -> dict[str, Any]:
    """Run it, and the fields of `golf rehearse`."""
    recipe = asked.recipe
    validation, open_s = timed(lambda: open_corpus(recipe).validation)  # whole, as the run opens it
    of_targets = scored_targets(validation)
    few = min(targets or enough_targets(recipe, asked.nproc), of_targets)
    short = rehearsed(recipe, steps, few, of_targets)
    _, bundle_s = timed(lambda: bundle(recipe, asked.backend))
    own_bytes = code_bytes(recipe)  # kept: the seeds that follow need not make it
    cold = cached_files(asked.cache) == 0
    folder = asked.runs / free_run_id(asked.runs, f"rehearsal-{recipe.name}-{asked.backend}")
    began = perform(asked, short, folder, own_bytes)
    warm_s = None if once else warm_start_s(asked, short, folder / "warm-start", own_bytes)
    seen = observe(folder, short)
    count, whose = task_targets(
        of_targets,
        recipe.arch.vocab_size,
        open_tokenizer(recipe.data.tokenizer).transform is not None,
        None if validation.subset is None else of_targets,
    )
    facts = Facts(
        targets=count,
        of_targets=whose,
        open_s=open_s,
        code_bytes=own_bytes,
        planned_bytes=planned_artifact_bytes(recipe, own_bytes),
        bundle_s=bundle_s,
        cold=cold,
        cold_start_s=seen.first_step_at_s - began,
        warm_start_s=warm_s,
    )
    return report(asked, folder, seen, facts)


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """What it gives, and its seconds."""
    started = time.perf_counter()
    made = work()
    return made, time.perf_counter() - started


def scored_targets(validation: Validation) -> int:
    """How many the real run's last scoring has, of the data that is here."""
    subset = validation.subset
    return validation.of_targets if subset is None else subset.targets


def perform(asked: Rehearsal, short: Recipe, folder: Path, own_bytes: int, *more: str) -> float:
    """Run the short recipe in processes of its own, into `folder`; when they were started."""
    with TemporaryDirectory() as place:
        path = Path(place) / "recipe.json"
        path.write_text(to_json(short), encoding="utf-8")
        words = ["-m", "tools.rehearsing.inside", str(path), "--backend", asked.backend]
        words += ["--folder", str(folder), "--code-bytes", str(own_bytes), *more]
        began = time.time()
        start([*launcher(asked.backend, asked.nproc), *words], asked.cache)
    return began


def warm_start_s(asked: Rehearsal, short: Recipe, folder: Path, own_bytes: int) -> float:
    """Seconds of a second start until its first step, with the graphs that the first one kept."""
    began = perform(asked, short, folder, own_bytes, "--start-only")
    return warm_at_s(folder) - began


def report(asked: Rehearsal, folder: Path, seen: Seen, facts: Facts) -> dict[str, Any]:
    """Everything as plain fields."""
    recipe, device = asked.recipe, seen.start["device"]
    fit = fits(recipe, seen.step_s, recipe.schedule.budget_s)
    stages = stage_fields(recipe, seen, fit)
    ends_s = [stages[index]["step_ms"] / 1000.0 for index in (0, -1)]
    name, ranks = seen.start["device_name"], seen.start["world_size"]
    return {
        "recipe": recipe.name,
        "backend": asked.backend,
        "device": device,
        "device_name": name,
        "world_size": ranks,
        "attention": seen.start["attention"],
        "rehearsed_steps": sum(seen.steps.values()),
        "steps": fit.steps,
        "stages": stages,
        "budgets": [asdict(row) for row in budgets(recipe, seen, facts)],
        "calibration_s": seen.phases_s.get("calibrate"),
        "peak_memory_bytes": seen.peak_bytes,
        "pod": compared(recipe, device, name, ranks, ends_s),
        "cache": asked.cache,
        "cached_files": cached_files(asked.cache),
        "run": str(folder),
    }


def show(fields: dict[str, Any]) -> None:
    """For people: a row a budget, the pod, and what to export."""
    count, name = fields["world_size"], fields["device_name"]
    print(f"{fields['recipe']} on {fields['backend']}, {count} x {name}, {fields['attention']}")
    print(f"\n{'budget':<26}{'expected':>14}{'limit':>14}  {'verdict':<13}how")
    for row in fields["budgets"]:
        told, limit = _amount(row["value"], row["unit"]), _amount(row["limit"], row["unit"])
        print(f"{row['name']:<26}{told:>14}{limit:>14}  {row['status']:<13}{row['how']}")
    print("the limits are the task's, on 8 H100")
    print(f"\n{pod_line(fields['pod'])}")
    if fields["seed_usd"] is not None:
        print(f"one seed costs {fields['seed_usd']:,.2f} dollars")
    if (peak := fields["peak_memory_bytes"]) is not None:
        print(f"peak memory of a device: {peak / 1e6:,.0f} MB")
    for variable, place in fields["cache"].items():
        print(f"export {variable}={shlex.quote(place)}")
    note(f"all of it is in {fields['run']}")


def pod_line(pod: dict[str, Any]) -> str:
    """How this pod does beside the nearest log."""
    if not pod["applies"]:
        return f"pod speed: {pod['why']}"
    told = ", then ".join(
        f"{phase['step_ms']:.1f} ms a step where {phase['expected_ms']:.1f} ms are expected "
        f"({phase['speed']:.2f} of that speed), {phase['tokens_per_s_per_gpu']:,.0f} tokens/s a GPU"
        for phase in pod["phases"]
    )
    verdict = "SLOW" if pod["slow"] else "as fast as its log"
    return f"pod speed: {verdict}: {told}; by the log of {pod['log']} on 8 x {pod['log_gpu']}"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.2f} {unit}"
