"""`[recipe] [section.field=value ...]` on a command line becomes a Recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.train.recipe import Recipe, from_json, with_changes
from core.train.recipes import RECIPES, named
from tools.say import UsageError


def add_recipe(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="recipe | section.field=value",
        help=f"a recipe ({', '.join(RECIPES)}, or a recipe.json) and changes to it, as "
        f"arch.num_layers=4 schedule.steps=200; default {default}",
    )
    parser.set_defaults(default_recipe=default)


def read_recipe(words: Sequence[str], default: str) -> Recipe:
    """The named recipe, or a recipe.json, with the changes applied."""
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise UsageError(f"one recipe at a time, found {', '.join(names)}")
    name = names[0] if names else default
    try:
        if name.endswith(".json"):
            recipe = from_json(Path(name).read_text(encoding="utf-8"), name)
        else:
            recipe = named(name)
        return with_changes(recipe, [word for word in words if "=" in word])
    except ValueError as error:
        raise UsageError(str(error)) from None
