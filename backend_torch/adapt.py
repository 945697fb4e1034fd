"""A model that learns from what has been scored: all its weights, or adapters for each document."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend_torch.adam import adam
from backend_torch.linear import Low, Sides
from backend_torch.model import GPT
from backend_torch.optimizer import CLIP_EPS, global_norm
from backend_torch.weights import parameters
from core.score.adaptation import Adaptation, Size, adapter_sizes, first_down, places

Rows = NDArray[np.int32]
Marks = NDArray[np.float32]
Arrays = dict[str, Tensor]
MOMENTS = ("mean", "square")
ODD = 0x2545F492  # even, so that what a checksum multiplies by is odd


class Learner:
    """What core's scorers ask of an engine: numpy in, numpy out.

    The adapters of one shape are one array, (B, K, rows, columns): K matrices for each of B rows.
    """

    def __init__(self, model: GPT, adaptation: Adaptation) -> None:
        self.model = model.requires_grad_(False)
        self._how = adaptation
        self._like = model.tok_emb.weight  # in device and dtype
        self._sizes = adapter_sizes(model.spec)
        self._places = places(self._sizes)
        self._speed: Arrays = {}  # of the weights: SGD's momentum
        self._sets: Arrays = {}  # the adapters, by shape and half
        self._moments: Arrays = {}
        self._spare: Arrays = {}  # of rows that are done
        self._first: dict[Size, Tensor] = {}  # A of a cold start, (1, K, rank, in)
        self._steps = 0
        self._loss: Tensor | None = None  # with its graph, until it is learned from
        self.still()

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> NDArray[np.float32]:
        """Nats of each target, float32 (B, L), beside the adapters: row b with set b.

        x: int32 (B, T); y, marks: (B, L). The loss sum(nats * marks) is kept for `learn`.
        """
        self._loss, last = None, 0 if y.shape == x.shape else y.shape[1]
        with torch.set_grad_enabled(marks is not None):
            nats = self.model.token_nats(self._put(x), self._put(y), last=last, sides=self._sides())
            if marks is not None:
                self._loss = (nats * self._put(marks)).sum()
        return nats.detach().cpu().numpy()

    @torch.no_grad()
    def log_probs(self, x: Rows, last: int) -> NDArray[np.float32]:
        """Log-probabilities behind the last inputs, float32 (B, last, V), beside the adapters."""
        logits = self.model.logits(self._put(x), last=last, sides=self._sides()).float()
        return torch.log_softmax(logits, -1).cpu().numpy()

    def learn(self) -> None:
        """A step of AdamW on the adapters, by the loss that was kept."""
        assert self._loss is not None
        grads = torch.autograd.grad(self._loss, list(self._sets.values()))
        self._loss, self._steps = None, self._steps + 1
        for name, grad in zip(list(self._sets), grads, strict=True):
            self._move(name, grad)

    def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
        """A step of SGD on all weights, without adapters, by the loss sum(nats * marks)."""
        self.model.requires_grad_(True)
        weights, sgd = parameters(self.model), self._how.sgd
        nats = self.model.token_nats(self._put(x), self._put(y))
        loss = (nats * self._put(marks)).sum()
        found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        self.model.requires_grad_(False)
        grads = clipped(dict(zip(weights, found, strict=True)), sgd.clip_norm)
        for name, weight in weights.items():
            self._speed[name] = sgd.momentum * self._speed[name] + grads[name]
            weight.copy_(weight - lr * self._speed[name])

    def still(self) -> None:
        """Forget the momentum of the weights."""
        if self._how.descends:
            weights = parameters(self.model)
            self._speed = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def reset(self, rows: int, warm: bool) -> None:
        """So many sets of adapters that add nothing; warm: their A is what the rows had."""
        had = {name: self._all_rows(name) for name in self._sets} if warm else {}
        self._loss, self._steps, self._spare = None, 0, {}
        for size in self._places:
            down, up = _names(size)
            cold = self._cold(size)
            kept = had[down][:rows] if down in had else cold[:0]
            more = cold.expand(rows - len(kept), *cold.shape[1:])
            self._sets[down] = torch.cat([kept, more])
            self._sets[up] = cold.new_zeros(rows, cold.shape[1], size[1], self._how.lora.rank)
        for name, held in self._sets.items():
            self._sets[name] = held.requires_grad_()
            self._moments |= {f"{part} {name}": torch.zeros_like(held) for part in MOMENTS}

    def trim(self, rows: int) -> None:
        """Only the first so many rows go on; what the others have is for who comes next."""
        for name, held in self._sets.items():
            if len(held) == rows:
                continue
            whole = self._all_rows(name)
            self._sets[name], self._spare[name] = whole[:rows].requires_grad_(), whole[rows:]
        self._moments = {name: held[:rows] for name, held in self._moments.items()}

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Checksums of the adapters, and of the weights where they learn."""
        parts = [self._sets, self._moments, self._spare, self._speed]
        if self._how.descends:
            parts.append(parameters(self.model))
        sums = [checksum(part[name]) for part in parts for name in sorted(part)]
        return {"sums": torch.stack(sums).cpu().numpy(), "steps": np.array([self._steps])}

    def lasting(self) -> dict[str, NDArray[Any]]:
        """Copies of what goes on behind a chunk or a `reset`: weights, momentum and a warm A."""
        return {name: held.detach().cpu().numpy().copy() for name, held in self._kept().items()}

    def go_on(self, held: dict[str, NDArray[Any]]) -> None:
        """Go on from there; as many adapters were reset."""
        for name, array in self._kept().items():
            array.detach().copy_(self._put(held[name]))

    def _kept(self) -> Arrays:
        """The arrays that neither a reset nor a new phase makes anew."""
        found = {f"speed {name}": held for name, held in self._speed.items()}
        if self._how.descends:
            found |= {f"weight {n}": held for n, held in parameters(self.model).items()}
        downs = [_names(size)[0] for size in self._places] if self._how.lora.warm_a else []
        return found | {name: self._sets[name] for name in downs if name in self._sets}

    def _move(self, name: str, grad: Tensor) -> None:
        """AdamW of one array."""
        lora, mean, square = self._how.lora, f"mean {name}", f"square {name}"
        moved, self._moments[mean], self._moments[square] = adam(
            self._sets[name].detach(),
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
        self._sets[name] = moved.requires_grad_()

    def _sides(self) -> Sides | None:
        """The adapters as the model takes them; none before the first reset."""
        if not self._sets:
            return None
        scale = self._how.lora.alpha / self._how.lora.rank
        sides: Sides = [{} for _ in self._sizes]
        for size, held in self._places.items():
            downs, ups = (self._sets[name].unbind(1) for name in _names(size))
            for (position, name), down, up in zip(held, downs, ups, strict=True):
                sides[position][name] = Low(down, up, scale)
        return sides

    def _cold(self, size: Size) -> Tensor:
        """A of adapters that have learned nothing, (1, K, rank, in)."""
        if size not in self._first:
            drawn = [first_down(p, self._how.lora.rank, size[0]) for p in self._places[size]]
            self._first[size] = torch.from_numpy(np.stack(drawn)[None]).to(self._like)
        return self._first[size]

    def _all_rows(self, name: str) -> Tensor:
        """Those at work and those that are done."""
        rows = self._sets[name].detach()
        return torch.cat([rows, self._spare[name]]) if name in self._spare else rows

    def _put(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows).to(self._like.device)


def clipped(grads: Arrays, most: float) -> Arrays:
    """Gradients whose norm as one vector is at most `most`; 0: as they are."""
    if not most:
        return grads
    scale = torch.clamp(most / (global_norm(grads) + CLIP_EPS), max=1.0)
    return {name: grad * scale for name, grad in grads.items()}


def checksum(held: Tensor) -> Tensor:
    """An integer that depends on every bit, and on where it stands."""
    bits = held.detach().reshape(-1).view(torch.int32)
    places = torch.arange(len(bits), dtype=torch.int32, device=bits.device)
    return (bits * (places * ODD + 1)).sum()


def _names(size: Size) -> tuple[str, str]:
    """Of the arrays of A and of B."""
    return f"down {size}", f"up {size}"
