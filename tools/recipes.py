"""A recipe from a command line: its name, old variables, --scale, and section.field=value words.

What stands later counts: named recipe, environment, --scale, --full, words. Every value that is not
the recipe's own keeps its origin.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.arch.fields import to_plain
from core.score.scoring import Score
from core.train.recipe import Recipe, from_json, with_changes
from core.train.recipes import RECIPES, baseline, for_memory, named, small
from core.train.scale import scaled
from tools import environment
from tools.costs import fitting_micro_batch, micro_batch_rows, planned_memory_bytes
from tools.environment import Change
from tools.say import UsageError
from tools.translate import translated

DEFAULTS = {  # as --help names them
    "torch": "baseline",
    "mlx": "the mac- preset for this Mac's memory; elsewhere small",
}
COMMAND_LINE = "the command line"
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a command line and the environment come to."""

    recipe: Recipe
    base: Recipe  # whose own every other value is
    origins: tuple[Change, ...]  # each value that is not the named recipe's
    notes: tuple[str, ...]  # sentences for the user
    run_id: str | None  # the environment's
    runs: str | None


def add_recipe(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="recipe | section.field=value",
        help=f"a recipe ({', '.join(RECIPES)}, or a recipe.json) and changes to it, as "
        f"arch.num_layers=4 schedule.steps=200; default {default}",
    )
    parser.set_defaults(default_recipe=default, more_words="words")


def add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale",
        metavar="RECIPE",
        help="shrink to the sizes of this recipe, as mac-16g, keeping every technique",
    )


def add_size(parser: argparse.ArgumentParser) -> None:
    add_scale(parser)
    parser.add_argument(
        "--full", action="store_true", help="score the whole validation split, not a subset"
    )


def read_recipe(words: Sequence[str], default: str) -> Recipe:
    """The named recipe, or a recipe.json, with the changes applied."""
    name, changes = split_words(words)
    with usage_errors():
        return with_changes(_load(name or default), changes)


def settle(
    words: Sequence[str],
    backend: str,
    environ: Mapping[str, str],
    *,
    scale: str | None = None,
    full: bool = False,
    memory_bytes: int | None = None,
) -> Settled:
    """The recipe to train; memory_bytes is a Mac's, None elsewhere."""
    name, typed = split_words(words)
    values = environment.read(environ)
    with usage_errors(values):
        base, why = _base(name, backend, values, memory_bytes)
        script = backend if name is None else ""  # a named recipe decides by itself
        given = _given(base, typed, values, script, scale, full)
        recipe = with_changes(base, [change.word for change in given.values()])
        if backend == "mlx" and memory_bytes is not None:
            given |= _micro_batch(recipe, given, memory_bytes)
            recipe = with_changes(base, [change.word for change in given.values()])
    return Settled(
        recipe=recipe,
        base=base,
        origins=tuple(given.values()),
        notes=(*environment.remarks(environ, recipe), *_chosen(recipe, why, memory_bytes)),
        run_id=environment.option(values, "--run-id"),
        runs=environment.option(values, "--runs"),
    )


def mac_memory_bytes() -> int | None:
    """The unified memory of this Mac; None on another machine."""
    if platform.system() != "Darwin":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe's name, if there is one, and the changes."""
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise UsageError(f"one recipe at a time, found {', '.join(names)}")
    return (names[0] if names else None), [word for word in words if "=" in word]


@contextmanager
def usage_errors(values: Iterable[str] = ()) -> Iterator[None]:
    """A recipe that does not add up is the command line's fault, or the environment's."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        names = ", ".join(values)
        told = f" (the environment sets {names})" if names else ""
        raise UsageError(f"{error}{told}") from None


def _load(name: str) -> Recipe:
    if name.endswith(".json"):
        return from_json(Path(name).read_text(encoding="utf-8"), name)
    return named(name)


def _base(
    name: str | None, backend: str, values: environment.Values, memory_bytes: int | None
) -> tuple[Recipe, str]:
    """The recipe that everything else changes, and why it, if nobody named it."""
    if name is not None:
        return _load(name), ""
    if backend == "torch":
        return baseline(), ""
    if first := environment.old_command(values):
        return baseline(), f"{first} is set: an old command, so its recipe is baseline"
    if memory_bytes is None:
        return small(), "not a Mac, so the recipe is small; name another, as mac-16g or baseline"
    recipe = for_memory(memory_bytes)
    return recipe, f"{memory_bytes / GIB:.0f} GiB of unified memory, so the recipe is {recipe.name}"


def _given(
    base: Recipe,
    typed: Sequence[str],
    values: environment.Values,
    script: str,
    scale: str | None,
    full: bool,
) -> dict[str, Change]:
    """Every field that is not left as `base` has it, by name; of two changes the later one."""
    outer = _from_environment(base, typed, values, script)
    pairs = (word.split("=", 1) for word in typed)
    words = [Change(field.strip(), value, COMMAND_LINE) for field, value in pairs]
    if scale is not None:
        recipe = with_changes(base, [change.word for change in (*outer, *words)])
        outer += _differences(recipe, scaled(recipe, named(scale)), f"--scale {scale}")
    if full:
        whole = (("score.subset", "full"), ("score.limit_tokens", "0"))
        outer += [Change(field, value, "--full") for field, value in whole]
    return {change.field: change for change in (*outer, *words)}


def _from_environment(
    base: Recipe, typed: Sequence[str], values: environment.Values, script: str
) -> list[Change]:
    """An old command's changes; what its script would do by itself is among them."""
    own_values = environment.SCRIPT_DEFAULTS.get(script, {})
    defaults = environment.read(own_values) if environment.old_command(values) else {}
    found = translated(defaults | values, base, typed)
    own = defaults.keys() - values.keys()
    return [
        change._replace(origin=f"{change.origin}, the script's default")
        if change.origin in own
        else change
        for change in found
    ]


def _differences(old: Recipe, new: Recipe, origin: str) -> list[Change]:
    before, after = dict(_flat(to_plain(old))), dict(_flat(to_plain(new)))
    return [Change(n, _spelled(v), origin) for n, v in after.items() if v != before[n]]


def _spelled(value: Any) -> str:
    """A value as a command line says it: lists are JSON."""
    return json.dumps(value) if isinstance(value, list | tuple) else str(value)


def _flat(plain: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _micro_batch(
    recipe: Recipe, given: Mapping[str, Change], memory_bytes: int
) -> dict[str, Change]:
    """A smaller micro-batch than nobody asked for, where half of this Mac's memory needs it."""
    held, rows = given.get("data.micro_batch"), fitting_micro_batch(recipe, memory_bytes)
    asked = held is not None and held.origin in (COMMAND_LINE, *environment.KNOWN)
    if asked or rows >= micro_batch_rows(recipe):
        return {}
    origin = f"{memory_bytes / GIB:.0f} GiB of unified memory"
    return {"data.micro_batch": Change("data.micro_batch", str(rows), origin)}


def _chosen(recipe: Recipe, why: str, memory_bytes: int | None) -> list[str]:
    """Why this recipe, how much memory it should take, and what part of validation it scores."""
    said = [why] if why else []
    if memory_bytes is not None:
        peak = planned_memory_bytes(recipe, "unified") / GIB
        rows = micro_batch_rows(recipe)
        said.append(f"predicted peak {peak:.1f} GiB, {rows} sequences in a micro-batch")
    if subset := subset_named(recipe.score):
        said.append(f"scores are of a subset, {subset}; --full scores all")
    return said


def subset_named(score: Score) -> str:
    """The part of the validation split that is asked for, or nothing."""
    if score.limit_tokens:
        return f"the first {score.limit_tokens:,} targets"
    return "" if score.subset == "full" else score.subset
