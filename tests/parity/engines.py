"""The two engines behind one face, and the float64 control: numpy in, numpy out."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import normal, random_bits, stream_of
from core.arch.params import Weights, init_params
from core.arch.spec import ModelSpec
from core.data.shards import TokenStream
from core.train.recipe import Recipe
from core.train.schedules import Knobs, after, knobs, stages

Rows = NDArray[np.int32]
ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("torch", "mlx")
BOS = 1


def engine(name: str) -> SimpleNamespace:
    """The modules of one backend by file name."""
    files = [path.stem for path in (ROOT / f"backend_{name}").glob("[a-z]*.py")]
    return SimpleNamespace(
        name=name,
        **{file: importlib.import_module(f"backend_{name}.{file}") for file in files},
        array=_array_of(name),
    )


def _array_of(name: str) -> Any:
    if name == "mlx":
        return importlib.import_module("mlx.core").array
    return importlib.import_module("torch").tensor


def to_numpy(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy().copy() if hasattr(value, "detach") else np.array(value)


def batch_of(spec: ModelSpec, rows: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Skewed token ids with document starts inside the rows; x, y int32 (rows, seq_len)."""
    bits = random_bits(seed, stream_of("batch"), rows * spec.seq_len + 1)
    drawn = (bits >> np.uint64(11)).astype(np.float64) / 2**53
    tokens = (drawn**2 * spec.vocab_size).astype(np.int32)
    tokens[:: spec.seq_len // 2 + 1] = BOS
    x, y = tokens[:-1].reshape(rows, -1), tokens[1:].reshape(rows, -1)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def perturbed(spec: ModelSpec, seed: int = 1, scale: float = 0.05) -> Weights:
    """First weights moved off their zeros, or most gradients would be zero."""
    first = init_params(spec, seed)
    return {
        name: (w + scale * normal(seed, stream_of(name + "+"), w.shape)).astype(np.float32)
        for name, w in first.items()
    }


class Run:
    """A Trainer of one engine fed from numpy."""

    def __init__(self, name: str, recipe: Recipe, weights: Weights | None = None) -> None:
        self.engine = engine(name)
        self.recipe = recipe
        self.trainer = self.engine.loop.Trainer(recipe, self.engine.distributed.Solo())
        if weights is not None:
            self.engine.weights.load_weights(self.trainer.model, weights, recipe.arch)
            self.restart()

    def feeder(self, stream: TokenStream) -> Any:
        return self.engine.feeder.Feeder(stream, self.recipe, self.trainer.group)

    def restart(self) -> None:
        model = self.trainer.model
        self.trainer.state = self.trainer.optimizer.start(self.engine.weights.parameters(model))

    def gradients(self, x: Rows, y: Rows) -> tuple[float, Weights]:
        loss, grads = self.trainer.gradients(self.put(x, y), stages(self.recipe)[-1])
        return float(loss), self.named(grads)

    def step(self, step: int, x: Rows, y: Rows) -> float:
        dials = self._dials(step)
        loss = float(self.trainer.step(self.put(x, y), dials))
        self.trainer.state |= after(self.recipe, self.trainer.state, dials)
        return loss

    def apply(self, step: int, grads: Weights) -> None:
        """One update of the optimizer from these gradients."""
        state = self.trainer.state
        put = {n: self.array(g, dtype=state[f"weight/{n}"].dtype) for n, g in grads.items()}
        dials = self._dials(step)
        self.trainer.optimizer.update(state, put, dials)
        state |= after(self.recipe, state, dials)

    def _dials(self, step: int) -> Knobs:
        return knobs(self.recipe, step, 0.0, self.trainer.state["snapshots"])

    def put(self, x: Rows, y: Rows) -> list[Any]:
        """One micro-batch."""
        return [self.engine.feeder.MicroBatch(self.array(x), self.array(y))]

    def array(self, value: NDArray[Any], **options: Any) -> Any:
        """The engine's array, on its device."""
        if self.engine.name == "torch":
            options["device"] = self.trainer.group.device
        return self.engine.array(value, **options)

    def named(self, arrays: dict[str, Any]) -> Weights:
        return {name: to_numpy(array) for name, array in arrays.items()}

    def weights(self) -> Weights:
        return self._held("weight")

    def averaged(self) -> Weights:
        return self._held("ema")

    def _held(self, part: str) -> Weights:
        found = self.engine.optimizer.held(self.trainer.state, part)
        return {name: to_numpy(value) for name, value in found.items()}

    def nats(self, x: Rows, y: Rows) -> NDArray[Any]:
        """Nats of each target by the weights in training."""
        model = self.trainer.model
        if self.engine.name == "mlx":
            self.trainer._load(self.trainer._weights())
        (tokens, targets, _), *_ = self.put(x, y)
        return to_numpy(model.token_nats(tokens, targets))


@contextlib.contextmanager
def control(recipe: Recipe, weights: Weights | None = None) -> Iterator[Run]:
    """torch in float64 throughout: what rounding alone costs is measured against it."""
    torch: Any = importlib.import_module("torch")
    with patch.dict(os.environ, {"GOLF_DEVICE": "cpu"}):  # Metal has no float64
        run = Run("torch", recipe, weights)
    run.trainer.model.double()
    run.restart()
    with patch.dict(run.engine.optimizer.DTYPES, {"fp32": torch.float64}):
        yield run


@contextlib.contextmanager
def started(recipe: Recipe, name: str, weights: Weights | None = None) -> Iterator[Run]:
    """A fresh run of an engine, or of the float64 control."""
    if name == "float64":
        with control(recipe, weights) as run:
            yield run
    else:
        yield Run(name, recipe, weights)


def mean_loss(nats: NDArray[Any]) -> float:
    """Row sums in float64: the loss that rungs compare."""
    return float(nats.astype(np.float64).sum() / nats.size)


def relative(found: NDArray[Any], expected: NDArray[Any], floor: float = 0.0) -> float:
    """L2 distance over the larger of the expected norm and `floor`."""
    found64, expected64 = found.astype(np.float64), expected.astype(np.float64)
    distance = float(np.linalg.norm(found64 - expected64))
    return distance / max(float(np.linalg.norm(expected64)), floor, 1e-300)


def global_norm(arrays: Weights) -> float:
    return float(np.sqrt(sum(np.sum(np.square(a.astype(np.float64))) for a in arrays.values())))


def distance(found: Weights, expected: Weights) -> float:
    """Relative L2 distance over all tensors together."""
    gap = {name: found[name].astype(np.float64) - expected[name] for name in expected}
    return global_norm(gap) / global_norm(expected)
