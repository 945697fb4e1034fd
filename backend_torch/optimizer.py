"""Routes each row of the parameter table to its rule; all state is one flat dict of arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backend_torch.adam import adam
from backend_torch.ema import ema
from backend_torch.muon import muon
from core.arch.params import Param, param_table
from core.arch.spec import ModelSpec
from core.train.newton_schulz import coefficients
from core.train.recipe import Optim
from core.train.schedules import Knobs

State = dict[str, Any]  # arrays as "weight/<name>", "momentum/<name>", ...; step, elapsed_s
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Optimizer:
    """Muon for banks of equal-shaped matrices, Adam for the rest: every row has one rule."""

    def __init__(self, spec: ModelSpec, optim: Optim) -> None:
        self.optim = optim
        self.banks: dict[tuple[int, ...], list[Param]] = {}
        self.adam_rows: list[Param] = []
        for row in param_table(spec):
            if row.rule == "matrix":
                self.banks.setdefault(row.shape, []).append(row)
            else:
                self.adam_rows.append(row)

    def start(self, weights: dict[str, Tensor]) -> State:
        """The state before the first step."""
        state: State = {"step": 0, "elapsed_s": 0.0}
        state |= {f"weight/{name}": weight for name, weight in weights.items()}
        for rows in self.banks.values():
            for row in rows:
                state[f"momentum/{row.name}"] = torch.zeros_like(weights[row.name])
        for row in self.adam_rows:
            state[f"adam_mean/{row.name}"] = torch.zeros_like(weights[row.name])
            state[f"adam_square/{row.name}"] = torch.zeros_like(weights[row.name])
        if self.optim.ema_decay:
            state |= {f"ema/{n}": weight.detach().clone() for n, weight in weights.items()}
        return state

    @torch.no_grad()
    def update(self, state: State, grads: dict[str, Tensor], knobs: Knobs) -> None:
        """One step of every rule, then of the average; `state` is brought up to date."""
        for rows in self.banks.values():
            self._muon(state, grads, rows, knobs)
        for row in self.adam_rows:
            self._adam(state, grads, row, knobs)
        if knobs.ema_decay:
            for name in grads:
                average, weight = state[f"ema/{name}"], state[f"weight/{name}"]
                _put(state, f"ema/{name}", ema(average, weight, knobs.ema_decay))

    def _muon(
        self, state: State, grads: dict[str, Tensor], rows: list[Param], knobs: Knobs
    ) -> None:
        weight, momentum = muon(
            torch.stack([state[f"weight/{row.name}"] for row in rows]),
            torch.stack([grads[row.name] for row in rows]),
            torch.stack([state[f"momentum/{row.name}"] for row in rows]),
            lr=self.optim.matrix_lr * knobs.lr_mul,
            beta=knobs.momentum,
            table=coefficients(self.optim.ns_table, self.optim.ns_steps),
            dtype=DTYPES[self.optim.ns_precision],
        )
        for index, row in enumerate(rows):
            _put(state, f"weight/{row.name}", weight[index])
            _put(state, f"momentum/{row.name}", momentum[index])

    def _adam(self, state: State, grads: dict[str, Tensor], row: Param, knobs: Knobs) -> None:
        keys = [f"{part}/{row.name}" for part in ("weight", "adam_mean", "adam_square")]
        rate: float = getattr(self.optim, f"{row.rule}_lr")
        weight, mean, square = (state[key] for key in keys)
        new = adam(
            weight,
            grads[row.name],
            mean,
            square,
            step=knobs.step + 1,
            lr=rate * knobs.lr_mul,
            beta1=self.optim.beta1,
            beta2=self.optim.beta2,
            eps=self.optim.adam_eps,
        )
        for key, value in zip(keys, new, strict=True):
            _put(state, key, value)


def arrays(state: State) -> dict[str, Tensor]:
    """The state without its numbers."""
    return {key: value for key, value in state.items() if "/" in key}


def averaged(state: State) -> dict[str, Tensor]:
    """The weights that are scored and packed: the average where there is one."""
    kind = "ema/" if any(key.startswith("ema/") for key in state) else "weight/"
    return {key.removeprefix(kind): t for key, t in state.items() if key.startswith(kind)}


def _put(state: State, key: str, value: Tensor) -> None:
    state[key].copy_(value)
