"""A model of this toolkit as a subject of an audit: packed, or small and of random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.noise import stream_of, uniform
from core.arch.params import Weights, init_params
from core.arch.spec import ModelSpec
from core.artifact.container import weights
from core.score.adaptation import Adaptation
from core.score.answers import Answer
from core.score.players import play_adapting, play_on_tape
from core.score.plays import Play
from core.score.protocols import Protocol
from core.score.scorers import Plain
from core.train.recipes import smoke
from tools.artifact import open_artifact
from tools.backends import load

NOISE = 0.2  # added to all weights: as they start, attention and MLP give zeros


@dataclass(frozen=True, kw_only=True, eq=False)
class Ours:
    """A model that an engine holds."""

    name: str
    spec: ModelSpec
    open: Callable[[], Any]  # a fresh evaluator with these weights
    backend: str


def open_ours(path: Path | None, vocab_size: int, backend: str, precision: str, seed: int) -> Ours:
    """The model of an artifact, or without one a random one. ValueError by other vocabularies."""
    if path is None:
        name, spec, found = random_model(vocab_size, seed)
    else:
        artifact = open_artifact(path)
        if artifact.spec is None:
            raise ValueError(f"{path}: the artifact names no ModelSpec: there is no model to score")
        name, spec, found = path.name, artifact.spec, weights(artifact)
    if spec.vocab_size != vocab_size:
        raise ValueError(
            f"{name} has a vocabulary of {spec.vocab_size}, the text one of {vocab_size}; "
            "set --data and --tokenizer, or --vocab-size"
        )
    open_evaluator = load(backend, "evaluate").open_evaluator
    fresh = partial(open_evaluator, found, spec, precision)
    return Ours(name=name, spec=spec, open=fresh, backend=backend)


def random_model(vocab_size: int, seed: int) -> tuple[str, ModelSpec, Weights]:
    """2 x 64 in windows of 64, every weight moved off its start."""
    spec = replace(smoke().arch, vocab_size=vocab_size)
    start = init_params(spec, seed)
    moved = {
        name: (array + NOISE * (uniform(seed, stream_of(name), array.shape) - 0.5)).astype(
            np.float32
        )
        for name, array in start.items()
    }
    return "random model", spec, moved


def play_ours(
    ours: Ours, plays: Sequence[Play], protocol: Protocol, batch: int, how: Adaptation | None
) -> list[Answer]:
    """As `golf score` scores it."""
    seq_len = ours.spec.seq_len
    if how is None:
        engine = ours.open()
        plain = Plain(engine.nats), engine.log_probs
        return play_on_tape(lambda: plain, plays, protocol, seq_len, batch)
    open_learner = load(ours.backend, "adapt").Learner

    def start() -> tuple[Any, Any]:
        learner = open_learner(ours.open().model, how)
        return learner, learner.log_probs

    return play_adapting(start, plays, protocol, how, seq_len, batch)
