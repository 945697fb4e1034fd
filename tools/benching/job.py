"""A row of a suite, and all that its measurement is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.train.recipe import Recipe
from core.train.recipes import named
from core.train.scale import scaled
from tools.benching.blocks import Rules
from tools.recipes import read_recipe
from tools.say import note

Kind = Literal[
    "step",
    "optimizer",
    "kernels",
    "attention",
    "loss",
    "sliding",
    "adapting",
    "cold",
    "ranks",
    "feeding",
    "coder",
    "solver",
]
Needs = Literal["any", "cuda", "metal"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement."""

    title: str
    kind: Kind
    backend: str = "torch"
    words: tuple[str, ...] = ()  # a recipe and changes to it
    needs: Needs = "any"
    stage: int = 0  # of the recipe's; -1: the last
    shape: tuple[int, ...] = ()  # as the kind's measure says
    tiny: tuple[int, ...] = ()  # the same for --tiny


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row as it is measured now."""

    row: Row
    rules: Rules
    tiny: bool = False
    peak_flops: float | None = None
    profile: Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row.tiny if self.tiny else self.row.shape

    def recipe(self) -> Recipe:
        """Of the row's words; tiny: every technique in the sizes of `smoke`, not compiled."""
        recipe = read_recipe(self.row.words, "small")
        return replace(scaled(recipe, named("smoke")), compile="off") if self.tiny else recipe

    def keep_profile(
        self, profiled: Callable[[Callable[[], Any], Path], str], work: Callable[[], Any]
    ) -> None:
        """Do the work under a profiler; its files lie in a folder of this row."""
        assert self.profile is not None
        slug = "".join(c if c.isalnum() else "-" for c in self.row.title).strip("-")
        folder = self.profile / slug
        folder.mkdir(parents=True, exist_ok=True)
        note(f"{self.row.title}: {profiled(work, folder)}")
