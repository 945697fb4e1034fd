"""The step in the reference scripts' form, for benchmarks alone: what it costs not to batch.

Newton-Schulz one matrix at a time, Adam and the average one tensor at a time, the optimizer not
compiled. (A benchmark waits for every step of either form.)
"""

from __future__ import annotations

from backend_torch.distributed import Solo
from backend_torch.loop import Trainer
from backend_torch.optimizer import Optimizer
from core.arch.params import param_table
from core.arch.spec import ModelSpec
from core.train.recipe import Optim, Recipe


class ReferenceOptimizer(Optimizer):
    """Every row of the parameter table is a bank of its own."""

    def __init__(self, spec: ModelSpec, optim: Optim, group: Solo) -> None:
        super().__init__(spec, optim, group)
        self.banks = [(row.rule, [row.name]) for row in param_table(spec)]


class ReferenceTrainer(Trainer):
    """The same model from the same weights."""

    def __init__(self, recipe: Recipe, group: Solo) -> None:
        super().__init__(recipe, group)
        self.optimizer = ReferenceOptimizer(recipe.arch, recipe.optim, group)
