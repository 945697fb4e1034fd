"""Qat: training against the rounding that packing will do - which weights, how, from when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import random_bits, stream_of
from core.arch.params import Param, Role, param_table
from core.arch.spec import ModelSpec
from core.artifact.grid import Grid
from core.artifact.quant import Quant, stored_format


@dataclass(frozen=True, kw_only=True)
class Qat:
    """Quantization-aware training: the loss is of rounded weights, the gradient passes.

    To the width and by the steps that the recipe's quant section has for each role, so that what
    is trained is what is packed. ste: each weight is its nearest level (Bengio et al. 2013).
    noise: it is off by up to half a step, anew in every step of the run.
    """

    form: Literal["none", "ste", "noise"] = "none"
    start: float = 0.0  # the progress from which on
    roles: tuple[Literal["embed", "head", "attn", "mlp"], ...] = ("embed", "head", "attn", "mlp")

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < 1.0:
            raise ValueError(f"qat: start {self.start} must be in [0, 1)")

    def on(self, progress: float) -> bool:
        return self.form != "none" and progress >= self.start


def rounded_grids(spec: ModelSpec, quant: Quant, qat: Qat) -> dict[str, Grid]:
    """The levels of each matrix that is rounded: where `quant` keeps floats, so does training."""
    grids, roles = {}, set[Role](qat.roles)
    for row in param_table(spec):
        if row.role in roles and stored_format(row, quant) != "fp16":
            grids[row.name] = quant.grid(row.role)
            _require_rows(row, quant)
            if quant.grid(row.role).quantile < 1:
                raise ValueError(
                    f"qat: {row.role} has steps by quantile {quant.grid(row.role).quantile}, which "
                    f"training does not follow; use quant.{row.role}_sigmas, or leave the role out "
                    "of qat.roles"
                )
    return grids


def _require_rows(row: Param, quant: Quant) -> None:
    """Training follows levels of rows alone."""
    form, group = stored_format(row, quant), quant.group(row)
    if form == "fp8" or group:
        raise ValueError(
            f"qat: {row.role} is {form} in groups of {group or 'a row'}, which training does not "
            f"follow; store it as int8 to int2 by row, or leave the role out of qat.roles"
        )


def noise_keys(seed: int, step: int, count: int) -> NDArray[np.uint32]:
    """What the noise of so many matrices is drawn from in this step, on every rank, (count,)."""
    bits = random_bits(seed, stream_of(f"qat noise {step}"), count)
    return (bits >> np.uint64(32)).astype(np.uint32)
