"""A model of this toolkit as a subject of an audit: packed, or small and of random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.noise import stream_of, uniform
from core.arch.params import Weights, init_params
from core.arch.spec import ModelSpec
from core.artifact.container import weights
from core.score.answers import Answer
from core.score.players import play_on_tape
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
    evaluator: Any


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
    evaluator = load(backend, "evaluate").open_evaluator(found, spec, precision)
    return Ours(name=name, spec=spec, evaluator=evaluator)


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


def play_ours(ours: Ours, plays: Sequence[Play], protocol: Protocol, batch: int) -> list[Answer]:
    """As `golf score` scores it."""
    engine = ours.evaluator
    return play_on_tape(
        lambda: (Plain(engine.nats), engine.log_probs), plays, protocol, ours.spec.seq_len, batch
    )
