"""A model that learns from what has been scored: all its weights, or adapters for each document."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array
from mlx.utils import tree_unflatten
from numpy.typing import NDArray

from backend_mlx.adam import adam
from backend_mlx.linear import Low, Sides
from backend_mlx.model import GPT
from backend_mlx.optimizer import CLIP_EPS, global_norm
from backend_mlx.weights import parameters
from core.score.adaptation import Adaptation, Size, adapter_sizes, first_down, places

Rows = NDArray[np.int32]
Marks = NDArray[np.float32]
Arrays = dict[str, array]
MOMENTS = ("mean", "square")
ODD = 0x2545F492  # even, so that what a checksum multiplies by is odd


class Learner:
    """What core's scorers ask of an engine: numpy in, numpy out.

    The adapters of one shape are one array, (B, K, rows, columns): K matrices for each of B rows.
    """

    def __init__(self, model: GPT, adaptation: Adaptation) -> None:
        self.model = model
        self._how = adaptation
        self._sizes = adapter_sizes(model.spec)
        self._places = places(self._sizes)
        self._speed: Arrays = {}  # of the weights: SGD's momentum
        self._sets: Arrays = {}  # the adapters, by shape and half
        self._moments: Arrays = {}
        self._spare: Arrays = {}  # of rows that are done
        self._first: dict[Size, array] = {}  # A of a cold start, (1, K, rank, in)
        self._steps = 0
        self._grads: Arrays | None = None  # not evaluated, until they are learned from
        self.still()

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> NDArray[np.float32]:
        """Nats of each target, float32 (B, L), beside the adapters: row b with set b.

        x: int32 (B, T); y, marks: (B, L). The loss sum(nats * marks) is kept for `learn`.
        """
        tokens, targets = self._put(x), self._put(y)
        self._grads, last = None, 0 if y.shape == x.shape else y.shape[1]
        if marks is None:
            sides = self._sides(self._sets)
            return np.array(self.model.token_nats(tokens, targets, last=last, sides=sides))
        weights = self._put(marks)

        def loss(sets: Arrays) -> tuple[array, array]:
            nats = self.model.token_nats(tokens, targets, last=last, sides=self._sides(sets))
            return (nats * weights).sum(), nats

        (_, nats), self._grads = mx.value_and_grad(loss)(self._sets)
        return np.array(nats)

    def log_probs(self, x: Rows, last: int) -> NDArray[np.float32]:
        """Log-probabilities behind the last inputs, float32 (B, last, V), beside the adapters."""
        logits = self.model.logits(self._put(x), last=last, sides=self._sides(self._sets))
        logits = logits.astype(mx.float32)
        return np.array(logits - mx.logsumexp(logits, -1, keepdims=True))

    def learn(self) -> None:
        """A step of AdamW on the adapters, by the loss that was kept."""
        assert self._grads is not None
        grads = self._grads
        self._grads, self._steps = None, self._steps + 1
        for name in list(self._sets):
            self._move(name, grads[name])
        mx.eval(self._sets, self._moments)

    def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
        """A step of SGD on all weights, without adapters, by the loss sum(nats * marks)."""
        tokens, targets, by = self._put(x), self._put(y), self._put(marks)
        weights, sgd = parameters(self.model), self._how.sgd

        def loss(weights: Arrays) -> array:
            self._load(weights)
            return (self.model.token_nats(tokens, targets) * by).sum()

        grads = clipped(mx.grad(loss)(weights), sgd.clip_norm)
        for name, weight in weights.items():
            self._speed[name] = sgd.momentum * self._speed[name] + grads[name]
            weights[name] = weight - lr * self._speed[name]
        mx.eval(weights, self._speed)
        self._load(weights)

    def still(self) -> None:
        """Forget the momentum of the weights."""
        if self._how.descends:
            weights = parameters(self.model)
            self._speed = {name: mx.zeros_like(weight) for name, weight in weights.items()}

    def reset(self, rows: int, warm: bool) -> None:
        """So many sets of adapters that add nothing; warm: their A is what the rows had."""
        had = {name: self._all_rows(name) for name in self._sets} if warm else {}
        self._grads, self._steps, self._spare = None, 0, {}
        for size in self._places:
            down, up = _names(size)
            cold = self._cold(size)
            kept = had[down][:rows] if down in had else cold[:0]
            more = mx.broadcast_to(cold, (rows - len(kept), *cold.shape[1:]))
            self._sets[down] = mx.concatenate([kept, more])
            self._sets[up] = mx.zeros((rows, cold.shape[1], size[1], self._how.lora.rank))
        for name, held in self._sets.items():
            self._moments |= {f"{part} {name}": mx.zeros_like(held) for part in MOMENTS}

    def trim(self, rows: int) -> None:
        """Only the first so many rows go on; what the others have is for who comes next."""
        for name, held in self._sets.items():
            if len(held) == rows:
                continue
            whole = self._all_rows(name)
            self._sets[name], self._spare[name] = whole[:rows], whole[rows:]
        self._moments = {name: held[:rows] for name, held in self._moments.items()}

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Checksums of the adapters, and of the weights where they learn."""
        parts = [self._sets, self._moments, self._spare, self._speed]
        if self._how.descends:
            parts.append(parameters(self.model))
        sums = [checksum(part[name]) for part in parts for name in sorted(part)]
        return {"sums": np.array(mx.stack(sums)), "steps": np.array([self._steps])}

    def lasting(self) -> dict[str, NDArray[Any]]:
        """Copies of what goes on behind a chunk or a `reset`: weights, momentum and a warm A."""
        return {name: np.array(held) for name, held in self._kept().items()}

    def go_on(self, held: dict[str, NDArray[Any]]) -> None:
        """Go on from there; as many adapters were reset."""
        found = {name: self._put(held[name]) for name in self._kept()}
        self._speed = {name: found[f"speed {name}"] for name in self._speed}
        self._sets = {name: found.get(name, held) for name, held in self._sets.items()}
        if self._how.descends:
            self._load({name: found[f"weight {name}"] for name in parameters(self.model)})

    def _kept(self) -> Arrays:
        """The arrays that neither a reset nor a new phase makes anew."""
        found = {f"speed {name}": held for name, held in self._speed.items()}
        if self._how.descends:
            found |= {f"weight {n}": held for n, held in parameters(self.model).items()}
        downs = [_names(size)[0] for size in self._places] if self._how.lora.warm_a else []
        return found | {name: self._sets[name] for name in downs if name in self._sets}

    def _move(self, name: str, grad: array) -> None:
        """AdamW of one array."""
        lora, mean, square = self._how.lora, f"mean {name}", f"square {name}"
        self._sets[name], self._moments[mean], self._moments[square] = adam(
            self._sets[name],
            grad,
            self._moments[mean],
            self._moments[square],
            lr=lora.lr,
            decay=lora.lr * lora.weight_decay,
            mean_left=1.0 - lora.beta1**self._steps,
            square_left=1.0 - lora.beta2**self._steps,
            beta1=lora.beta1,
            beta2=lora.beta2,
            eps=lora.eps,
        )

    def _sides(self, sets: Arrays) -> Sides | None:
        """The adapters as the model takes them; none before the first reset."""
        if not sets:
            return None
        scale = self._how.lora.alpha / self._how.lora.rank
        sides: Sides = [{} for _ in self._sizes]
        for size, held in self._places.items():
            downs, ups = (mx.split(sets[name], len(held), 1) for name in _names(size))
            for (position, name), down, up in zip(held, downs, ups, strict=True):
                sides[position][name] = Low(down.squeeze(1), up.squeeze(1), scale)
        return sides

    def _cold(self, size: Size) -> array:
        """A of adapters that have learned nothing, (1, K, rank, in)."""
        if size not in self._first:
            drawn = [first_down(p, self._how.lora.rank, size[0]) for p in self._places[size]]
            self._first[size] = mx.array(np.stack(drawn)[None])
        return self._first[size]

    def _all_rows(self, name: str) -> array:
        """Those at work and those that are done."""
        rows = self._sets[name]
        return mx.concatenate([rows, self._spare[name]]) if name in self._spare else rows

    def _load(self, weights: Arrays) -> None:
        self.model.update(tree_unflatten(list(weights.items())))

    def _put(self, rows: NDArray[Any]) -> array:
        return mx.array(rows)


def clipped(grads: Arrays, most: float) -> Arrays:
    """Gradients whose norm as one vector is at most `most`; 0: as they are."""
    if not most:
        return grads
    scale = mx.minimum(most / (global_norm(grads) + CLIP_EPS), 1.0)
    return {name: grad * scale for name, grad in grads.items()}


def checksum(held: array) -> array:
    """An integer that depends on every bit, and on where it stands."""
    bits = held.reshape(-1).view(mx.int32)
    places = mx.arange(len(bits), dtype=mx.int32)
    return (bits * (places * ODD + 1)).sum()


def _names(size: Size) -> tuple[str, str]:
    """Of the arrays of A and of B."""
    return f"down {size}", f"up {size}"
