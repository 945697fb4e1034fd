"""Adaptation to what has been scored, as data: what learns, how fast, behind how many tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import stream_of, uniform
from core.arch.plan import forward_plan
from core.arch.spec import ModelSpec

Adapt = Literal["none", "sgd", "lora", "phased"]  # all weights; per document; both by turns
Size = tuple[int, int]  # inputs and outputs of an adapter
Place = tuple[int, str]  # its visit, and what it stands beside


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Descent on all weights, chunk behind chunk (as the 1.0810 record does).

    The rate falls over the text by half a cosine, from lr to 0 where the last chunk begins. It is
    of the tokens behind it and of all: where documents end ahead does not move it.
    """

    lr: float = 0.005
    epochs: int = 3  # over each chunk, once it is scored
    momentum: float = 0.9
    clip_norm: float = 1.0  # of all gradients as one vector; 0: as they are
    chunk_tokens: int = 32_768
    batch_seqs: int = 32  # rows of the model's length a step

    def __post_init__(self) -> None:
        _need("sgd", self, {"lr": 0.0, "clip_norm": 0.0})
        _need("sgd", self, {"epochs": 1, "chunk_tokens": 1, "batch_seqs": 1})
        _need_fraction("sgd", self, "momentum")

    def lr_at(self, done: int, total: int) -> float:
        """lr (1 + cos(pi i / (n - 1))) / 2 of chunk i of n, where `done` of all tokens are before
        it."""
        part = min(1.0, done / max(1, total - self.chunk_tokens))
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * part))


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Matrices of low rank beside the model's own (Hu et al. 2021), a set for each document.

    One step of AdamW behind each window of a document but its last one (as the 1.0611 record does).
    """

    rank: int = 80
    alpha: float = 144.0  # over the rank: what their product is multiplied by
    lr: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-10
    weight_decay: float = 0.5  # decoupled: each step keeps 1 - lr * decay
    docs_batch: int = 64  # documents side by side
    warm_a: bool = True  # the half that starts at random goes on to the slot's next document

    def __post_init__(self) -> None:
        _need("lora", self, {"lr": 0.0, "alpha": 0.0, "weight_decay": 0.0})
        _need("lora", self, {"rank": 1, "docs_batch": 1})
        _need_fraction("lora", self, "beta1")
        _need_fraction("lora", self, "beta2")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"score.lora.eps {self.eps} must be positive and finite")


@dataclass(frozen=True, kw_only=True)
class Phased:
    """When all weights learn from the documents that are scored, by the numbers of Sgd."""

    prefix_docs: int = 2500  # the last phase has so many; the phases before it their share
    phases: int = 3

    def __post_init__(self) -> None:
        _need("phased", self, {"prefix_docs": 1, "phases": 1})

    def boundaries(self, documents: int) -> tuple[int, ...]:
        """How many documents each phase learns from, the first ones of the plan."""
        most = min(self.prefix_docs, documents)
        shares = (most * (phase + 1) // self.phases for phase in range(self.phases))
        return tuple(sorted({share for share in shares if share}))


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One of them with its numbers."""

    name: Adapt
    sgd: Sgd
    lora: Lora
    phased: Phased

    @property
    def per_document(self) -> bool:
        """Whether documents have adapters of their own."""
        return self.name in ("lora", "phased")

    @property
    def isolates(self) -> bool:
        """Whether nothing goes from one document to another."""
        return self.name == "lora" and not self.lora.warm_a

    @property
    def descends(self) -> bool:
        """Whether the model's own weights move."""
        return self.name in ("sgd", "phased")

    def described(self) -> dict[str, Any]:
        """As fields of a report: what was adapted, and how."""
        parts: dict[str, Any] = {"lora": self.lora} if self.per_document else {}
        parts |= {"sgd": self.sgd} if self.descends else {}
        parts |= {"phased": self.phased} if self.name == "phased" else {}
        return {"name": self.name, **{name: asdict(part) for name, part in parts.items()}}

    def label(self) -> str:
        """What stands beside a score."""
        return f"adapted by {self.name}"


def adapter_sizes(spec: ModelSpec) -> list[dict[str, Size]]:
    """Inputs and outputs of the adapters: one entry a visit of the plan, then the head.

    That of `proj` reads what attention reads, that of `mlp` what the MLP reads: each adds to what
    comes out of the whole of it.
    """
    dim, kv_dim = spec.model_dim, spec.kv_dim
    square, narrow = (dim, dim), (dim, kv_dim)
    visit = {"c_q": square, "c_k": narrow, "c_v": narrow, "proj": square, "mlp": square}
    head = {"head": (spec.table_dim, spec.vocab_size)}
    return [*(visit for _ in forward_plan(spec)), head]


def places(sizes: list[dict[str, Size]]) -> dict[Size, list[Place]]:
    """The adapters of each size together: where they stand."""
    found: dict[Size, list[Place]] = {}
    for position, side in enumerate(sizes):
        for name, size in side.items():
            found.setdefault(size, []).append((position, name))
    return found


def first_down(place: Place, rank: int, in_dims: int) -> NDArray[np.float32]:
    """A of an adapter that has learned nothing: uniform in +-1/sqrt(in_dims), (rank, in_dims).

    The same for every document, so that no score depends on who stands beside whom.
    """
    drawn = uniform(0, stream_of(f"adapter {place[0]}.{place[1]}"), (rank, in_dims))
    return ((2.0 * drawn - 1.0) / math.sqrt(in_dims)).astype(np.float32)


def _need(part: str, value: object, least: Mapping[str, float]) -> None:
    for name, bound in least.items():
        found = getattr(value, name)
        if not bound <= found < math.inf:
            raise ValueError(f"score.{part}.{name} {found} must be at least {bound} and finite")


def _need_fraction(part: str, value: object, name: str) -> None:
    if not 0 <= getattr(value, name) < 1:
        raise ValueError(f"score.{part}.{name} {getattr(value, name)} must be in [0, 1)")
