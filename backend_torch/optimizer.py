"""Routes each row of the parameter table to its rule; all state is one flat dict of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backend_torch.adam import adam
from backend_torch.distributed import Bank, Solo
from backend_torch.ema import ema
from backend_torch.muon import muon
from core.arch.params import Rule, param_table
from core.arch.spec import ModelSpec
from core.train.newton_schulz import coefficients
from core.train.recipe import Optim
from core.train.schedules import START, Knobs, rates

State = dict[str, Any]  # arrays as "weight/<name>", "momentum/<name>", ...; step, elapsed_s
Arrays = dict[str, Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CLIP_EPS = 1e-6  # added to the norm, as torch's clip_grad_norm_ does


class Optimizer:
    """Muon for matrices, Adam for the rest, in banks of one shape: every row has one rule."""

    def __init__(self, spec: ModelSpec, optim: Optim, group: Solo, compiles: bool = False) -> None:
        self.optim = optim
        self.group = group
        self.banks = banks(spec)
        self._next = torch.compile(self._moved, dynamic=False) if compiles else self._moved

    def start(self, weights: Arrays) -> State:
        """The state before the first step."""
        state: State = dict(START)
        state |= {f"weight/{name}": weight for name, weight in weights.items()}
        for rule, names in self.banks:
            for part in ("momentum",) if rule == "matrix" else ("adam_mean", "adam_square"):
                state |= {f"{part}/{name}": torch.zeros_like(weights[name]) for name in names}
            if rule == "matrix" and self.optim.row_beta2:
                rows = {name: weights[name][:, :1] for name in names}
                state |= {f"row_square/{n}": torch.zeros_like(row) for n, row in rows.items()}
        if self.optim.averages:
            state |= {f"ema/{n}": weight.detach().clone() for n, weight in weights.items()}
        return state

    @torch.no_grad()
    def update(self, state: State, grads: Arrays, knobs: Knobs) -> Tensor:
        """One step of every rule, then of the average; `state` is brought up to date.

        Unless a gradient is NaN or infinite: then nothing moves. Whether it moved is returned.
        Rates go in as arrays, so that a compiled step is compiled once.
        """
        dials = {n: _scalar(value, grads) for n, value in rates(self.optim, knobs).items()}
        counted = {"": _scalar(0.0, grads)}  # each gradient by one rank
        counted |= {n: grads[n] for _, names in self.banks for n in self.group.own(names)}
        square = self.group.sum({"": torch.square(global_norm(counted))})
        norm = torch.sqrt(square[""])
        on_the_way = []
        for part in self.group.parts(self.banks):
            _put(state, self._next(part, arrays(state), grads, dials, norm))
            on_the_way += [self._collect(state, "weight", names) for names in matrices(part)]
        for arrived in on_the_way:
            _put(state, arrived())
        return torch.isfinite(norm)

    def _moved(
        self, part: list[Bank], old: Arrays, grads: Arrays, dials: Arrays, norm: Tensor
    ) -> Arrays:
        """The arrays of the state after the step, of what has a gradient in these banks."""
        good = torch.isfinite(norm)
        if self.optim.grad_clip_norm:
            scale = torch.clamp(self.optim.grad_clip_norm / (norm + CLIP_EPS), max=1.0)
            own = [name for _, names in part for name in names if name in grads]
            grads = {name: grads[name] * scale for name in own}
        new: Arrays = {}
        for rule, names in part:
            if own := [name for name in names if name in grads]:
                move = self._muon if rule == "matrix" else self._adam
                new |= move(old, grads, dials, rule, own)
        if self.optim.averages:
            for name in [key.removeprefix("weight/") for key in new if key.startswith("weight/")]:
                weight = torch.where(good, new[f"weight/{name}"], old[f"weight/{name}"])
                new[f"ema/{name}"] = ema(old[f"ema/{name}"], weight, dials["ema_decay"])
        return {key: torch.where(good, value, old[key]) for key, value in new.items()}

    def whole(self, state: State) -> Arrays:
        """All arrays of the state, each as its owner has it. All ranks ask for it."""
        found = arrays(state)
        for part in ("momentum", "row_square", "ema"):
            for names in matrices(self.banks):
                if f"{part}/{names[0]}" in found:
                    found |= self._collect(found, part, names)()
        return found

    def _collect(self, state: State, part: str, names: list[str]) -> Callable[[], Arrays]:
        keys = [f"{part}/{name}" for name in names]
        return self.group.collect({key: state[key] for key in keys})

    def _muon(
        self, old: Arrays, grads: Arrays, dials: Arrays, rule: Rule, names: list[str]
    ) -> Arrays:
        optim, squares = self.optim, "row_square" if self.optim.row_beta2 else None
        weight, momentum, square = muon(
            _bank(old, "weight", names),
            torch.stack([grads[name] for name in names]),
            _bank(old, "momentum", names),
            _bank(old, squares, names) if squares else None,
            lr=dials[rule],
            decay=dials[f"{rule}_decay"] if self.optim.decay(rule) else None,
            beta=dials["momentum"],
            table=coefficients(optim.ns_table, optim.ns_steps),
            dtype=DTYPES[optim.ns_precision],
            row_norm=optim.row_norm,
            row_beta2=optim.row_beta2,
        )
        new = _named("weight", names, weight) | _named("momentum", names, momentum)
        if optim.row_beta2 and square is not None:
            new |= _named("row_square", names, square)
        return new

    def _adam(
        self, old: Arrays, grads: Arrays, dials: Arrays, rule: Rule, names: list[str]
    ) -> Arrays:
        beta1, beta2 = self.optim.betas(rule)
        weight, mean, square = adam(
            _bank(old, "weight", names),
            torch.stack([grads[name] for name in names]),
            _bank(old, "adam_mean", names),
            _bank(old, "adam_square", names),
            lr=dials[rule],
            decay=dials[f"{rule}_decay"] if self.optim.decay(rule) else None,
            mean_left=dials[f"{rule}_mean_left"],
            square_left=dials[f"{rule}_square_left"],
            beta1=beta1,
            beta2=beta2,
            eps=self.optim.adam_eps,
        )
        new = _named("weight", names, weight)
        return new | _named("adam_mean", names, mean) | _named("adam_square", names, square)


def banks(spec: ModelSpec) -> list[Bank]:
    """The names of all parameters, those of one rule and one shape together."""
    found: dict[tuple[Rule, tuple[int, ...]], list[str]] = {}
    for row in param_table(spec):
        found.setdefault((row.rule, row.shape), []).append(row.name)
    return [(rule, names) for (rule, _), names in found.items()]


def matrices(banks: list[Bank]) -> list[list[str]]:
    """The names in each bank that is dealt to the ranks."""
    return [names for rule, names in banks if rule == "matrix"]


def global_norm(grads: Arrays) -> Tensor:
    """The L2 norm of all gradients as one vector."""
    return torch.nn.utils.get_total_norm([*grads.values()])


def arrays(state: State) -> Arrays:
    """The state without its numbers."""
    return {key: value for key, value in state.items() if "/" in key}


def held(state: State, part: str) -> Arrays:
    """One part of the state by the names of the weights: "weight", "ema", "momentum", ..."""
    at = f"{part}/"
    return {key.removeprefix(at): t for key, t in state.items() if key.startswith(at)}


def _bank(old: Arrays, part: str, names: list[str]) -> Tensor:
    return torch.stack([old[f"{part}/{name}"] for name in names])


def _named(part: str, names: list[str], bank: Tensor) -> Arrays:
    return {f"{part}/{name}": bank[index] for index, name in enumerate(names)}


def _put(state: State, new: Arrays) -> None:
    """In place: the model has its weights there."""
    for key, value in new.items():
        state[key].copy_(value)


def _scalar(value: float, grads: Arrays) -> Tensor:
    """On the gradients' device and in their dtype, without a shape.

    Filled there: to copy a number to a device is to wait until the device is idle.
    """
    like = next(iter(grads.values()))
    return torch.full((), value, dtype=like.dtype, device=like.device)
