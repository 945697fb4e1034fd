"""Routes each row of the parameter table to its rule; all state is one flat dict of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.core import array

from backend_mlx.adam import adam
from backend_mlx.distributed import Bank, Solo
from backend_mlx.ema import ema
from backend_mlx.muon import muon
from core.arch.params import Rule, param_table
from core.arch.spec import ModelSpec
from core.train.newton_schulz import coefficients
from core.train.recipe import Optim
from core.train.schedules import START, Knobs, rates

State = dict[str, Any]  # arrays as "weight/<name>", "momentum/<name>", ...; step, elapsed_s
Arrays = dict[str, array]
DTYPES = {"bf16": mx.bfloat16, "fp32": mx.float32}
CLIP_EPS = 1e-6  # added to the norm, as torch's clip_grad_norm_ does


class Optimizer:
    """Muon for matrices, Adam for the rest, in banks of one shape: every row has one rule."""

    def __init__(self, spec: ModelSpec, optim: Optim, group: Solo, compiles: bool = False) -> None:
        self.optim = optim
        self.group = group
        self.banks = banks(spec)
        self._next = mx.compile(self._moved) if compiles else self._moved

    def start(self, weights: Arrays) -> State:
        """The state before the first step."""
        state: State = dict(START)
        state |= {f"weight/{name}": weight for name, weight in weights.items()}
        for rule, names in self.banks:
            for part in ("momentum",) if rule == "matrix" else ("adam_mean", "adam_square"):
                state |= {f"{part}/{name}": mx.zeros_like(weights[name]) for name in names}
            if rule == "matrix" and self.optim.row_beta2:
                rows = {name: weights[name][:, :1] for name in names}
                state |= {f"row_square/{n}": mx.zeros_like(row) for n, row in rows.items()}
        if self.optim.averages:
            state |= {f"ema/{n}": mx.array(weight) for n, weight in weights.items()}
        return state

    def update(self, state: State, grads: Arrays, knobs: Knobs) -> array:
        """One step of every rule, then of the average; `state` is brought up to date.

        Unless a gradient is NaN or infinite: then nothing moves. Whether it moved is returned.
        Rates go in as arrays, so that a compiled step is compiled once.
        """
        dials = {n: mx.array(value) for n, value in rates(self.optim, knobs).items()}
        counted = {"": mx.zeros(())}  # each gradient by one rank
        counted |= {n: grads[n] for _, names in self.banks for n in self.group.own(names)}
        square = self.group.sum({"": mx.square(global_norm(counted))})
        norm = mx.sqrt(square[""])
        on_the_way = []
        for part in self.group.parts(self.banks):
            state |= self._next(part, arrays(state), grads, dials, norm)
            on_the_way += [self._collect(state, "weight", names) for names in matrices(part)]
        for arrived in on_the_way:
            state |= arrived()
        return mx.isfinite(norm)

    def _moved(
        self, part: list[Bank], old: Arrays, grads: Arrays, dials: Arrays, norm: array
    ) -> Arrays:
        """The arrays of the state after the step, of what has a gradient in these banks."""
        good = mx.isfinite(norm)
        if self.optim.grad_clip_norm:
            scale = mx.minimum(self.optim.grad_clip_norm / (norm + CLIP_EPS), 1.0)
            own = [name for _, names in part for name in names if name in grads]
            grads = {name: grads[name] * scale for name in own}
        new: Arrays = {}
        for rule, names in part:
            if own := [name for name in names if name in grads]:
                move = self._muon if rule == "matrix" else self._adam
                new |= move(old, grads, dials, rule, own)
        if self.optim.averages:
            for name in [key.removeprefix("weight/") for key in new if key.startswith("weight/")]:
                weight = mx.where(good, new[f"weight/{name}"], old[f"weight/{name}"])
                new[f"ema/{name}"] = ema(old[f"ema/{name}"], weight, dials["ema_decay"])
        return {key: mx.where(good, value, old[key]) for key, value in new.items()}

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
            mx.stack([grads[name] for name in names]),
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
            mx.stack([grads[name] for name in names]),
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


def global_norm(grads: Arrays) -> array:
    """The L2 norm of all gradients as one vector."""
    return mx.sqrt(mx.stack([mx.sum(mx.square(grad)) for grad in grads.values()]).sum())


def arrays(state: State) -> Arrays:
    """The state without its numbers."""
    return {key: value for key, value in state.items() if "/" in key}


def held(state: State, part: str) -> Arrays:
    """One part of the state by the names of the weights: "weight", "ema", "momentum", ..."""
    at = f"{part}/"
    return {key.removeprefix(at): t for key, t in state.items() if key.startswith(at)}


def _bank(old: Arrays, part: str, names: list[str]) -> array:
    return mx.stack([old[f"{part}/{name}"] for name in names])


def _named(part: str, names: list[str], bank: array) -> Arrays:
    return {f"{part}/{name}": bank[index] for index, name in enumerate(names)}
