"""Recipes from a command line: each named one, shrunk to each size, is what core makes of it."""

from __future__ import annotations

import pytest

from core.train.recipes import RECIPES, named
from core.train.scale import scaled
from tools.recipes import settle
from tools.say import UsageError


@pytest.mark.parametrize("size", ["smoke", "mac-8g"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_shrunk_from_a_command_line(name: str, size: str) -> None:
    settled = settle([name], "torch", {}, scale=size)
    assert settled.recipe == scaled(named(name), named(size))
    assert all(change.origin == f"--scale {size}" for change in settled.origins)


def test_what_is_typed_counts_after_the_size() -> None:
    order = '[{"at": 0, "order": [0, 1]}]'
    words = ["universal", "arch.num_layers=2", f"arch.phases={order}"]
    spec = settle(words, "torch", {}, scale="smoke").recipe.arch
    assert spec.phases[0].order == (0, 1) and spec.num_layers == 2


def test_an_order_that_is_no_json_is_told() -> None:
    with pytest.raises(UsageError, match=r"phases: expected a list of \{at, order\}, found '0,1'"):
        settle(["r1061", "arch.phases=0,1"], "torch", {})
