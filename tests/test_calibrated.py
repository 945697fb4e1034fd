"""Runs that measure what their matrices are multiplied with, and pack by it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from core.arch.noise import normal, stream_of
from core.arch.params import init_params
from core.arch.spec import BOS
from core.artifact.container import read, weights
from core.artifact.solving import Calibration
from core.artifact.sums import output_errors
from core.data.shards import TokenStream, open_split
from core.train.calibration import COUNTED_TOKENS, share, written
from core.train.clock import BudgetClock
from core.train.finish import pack
from core.train.keeper import Keeper
from core.train.recipe import Recipe, with_changes
from tests.conftest import Text
from tests.parity.engines import ENGINES, engine
from tests.test_resume import Events, run

each_engine = pytest.mark.parametrize("name", ENGINES)
SIX = ("quant.mlp=int4", "quant.attn=int4", "quant.keep_below=256", "quant.calibration_batches=3")


def recipe_of(text: Text, *changes: str) -> Recipe:
    return text.recipe(*SIX, "quant.solver=gptq", "score.limit_tokens=1024", *changes)


def measured(text: Text, name: str, recipe: Recipe, trained: Any) -> Calibration:
    """What the engine finds of these weights."""
    parts = engine(name)
    group = parts.distributed.Solo()
    trainer, stream = parts.loop.Trainer(recipe, group), open_split(text.shards, "train")
    known = trainer.calibration(trained, parts.feeder.Feeder(stream, recipe, group), stream)
    assert isinstance(known, Calibration)
    return known


@each_engine
def test_a_run_packs_by_what_it_measured(text: Text, name: str) -> None:
    """The outputs lose less than by the nearest levels; the clock and the header say what was."""
    recipe, events = recipe_of(text), Events()
    finished = run(recipe, name, Keeper(None, time.perf_counter), events)
    artifact = read(finished.model)
    assert artifact.solver == "gptq" and not events.of("note")
    assert finished.phases_s["calibrate"] > 0
    known = measured(text, name, recipe, finished.weights)
    _, again = pack(finished.weights, recipe, BudgetClock(time.perf_counter), known)
    assert read(again).solver == "gptq"
    near, _ = pack(
        finished.weights,
        with_changes(recipe, ["quant.solver=nearest"]),
        BudgetClock(time.perf_counter),
    )
    lost = [total(finished.weights, weights(one), known) for one in (read(again), near)]
    assert lost[0] < 0.8 * lost[1]
    assert abs(total(finished.weights, weights(artifact), known) / lost[0] - 1) < 0.01


def total(trained: Any, packed: Any, known: Calibration) -> float:
    """What the outputs of all matrices with known inputs are off by, squares added up."""
    return sum(
        float(output_errors(trained[name] - packed[name], hessian).sum())
        for name, hessian in known.hessians.items()
    )


@each_engine
def test_both_engines_measure_the_same(text: Text, name: str) -> None:
    """And count the tokens of training for the rows of the table."""
    recipe = recipe_of(text, "quant.embed=int8")
    trained = engine("torch").loop.Trainer(recipe, engine("torch").distributed.Solo()).packs()
    known, other = (measured(text, one, recipe, trained) for one in (name, "torch"))
    assert known.hessians.keys() == other.hessians.keys() and "tok_emb.weight" in known.hessians
    for matrix, hessian in known.hessians.items():
        truth = other.hessians[matrix]
        assert np.abs(hessian - truth).max() <= 1e-5 * np.abs(truth).max(), matrix
    stream = open_split(text.shards, "train")
    assert known.counts["tok_emb.weight"].sum() == min(len(stream), COUNTED_TOKENS)
    assert not known.fisher, "only where the steps ask for it"


def moved(name: str, weight: Any) -> Any:
    return normal(1, stream_of(name), weight.shape).astype(np.float32)


@each_engine
def test_a_run_has_steps_by_what_its_outputs_are_worth(text: Text, name: str) -> None:
    """Both engines weigh the same outputs of the same drawn tokens, and pack by them."""
    recipe = recipe_of(text, "quant.embed=int8", "quant.steps=fisher", "quant.step_scale=1e-3")
    first = init_params(recipe.arch, 1)
    trained = {key: weight + 0.02 * moved(key, weight) for key, weight in first.items()}
    known, other = (measured(text, one, recipe, trained) for one in (name, "torch"))
    assert known.fisher.keys() == known.hessians.keys()
    assert known.fisher["tok_emb.weight"].shape == (1,)
    for matrix, worth in known.fisher.items():
        assert np.abs(worth - other.fisher[matrix]).max() <= 1e-2 * other.fisher[matrix].max()
    artifact = read(pack(trained, recipe, BudgetClock(time.perf_counter), known)[1])
    scales = {packed.name: packed.row_scale for packed in artifact.tensors}
    for matrix, worth in known.fisher.items():
        if worth.size > 1:
            most, least = worth.argmax(), worth.argmin()
            assert scales[matrix][most] < scales[matrix][least], "a row of worth has finer steps"


@each_engine
def test_a_run_calibrates_by_what_it_writes_itself(
    text: Text, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read; rows begin with BOS and are drawn from the model, alike on both engines."""
    words = ("quant.embed=int8", "quant.steps=fisher", "quant.calibration_rows=6")
    recipe, parts = recipe_of(text, *words, "arch.seq_len=32"), engine(name)
    first = init_params(recipe.arch, 1)
    trained = {key: weight + 0.02 * moved(key, weight) for key, weight in first.items()}
    seen = list[Any]()

    def heard(model: Any, batches: Any, *rest: Any) -> Any:
        seen.extend(np.asarray(batch) for batch in batches)
        return moments(model, batches, *rest)

    moments = parts.calibrate.moments
    monkeypatch.setattr(parts.loop, "moments", heard)
    monkeypatch.setattr(parts.feeder.Feeder, "batch_at", None)
    monkeypatch.setattr(TokenStream, "slice", None)
    known = measured(text, name, recipe, trained)
    evaluator = parts.evaluate.open_evaluator(trained, recipe.arch, "fp32")
    rows = np.concatenate(list(written(evaluator.next_logits, range(6), 32, recipe.seed)))
    assert np.array_equal(np.concatenate(seen), rows) and (rows[:, 0] == BOS).all()
    assert len(np.unique(rows, axis=0)) == 6 and len(np.unique(rows)) > 20
    assert np.array_equal(known.counts["tok_emb.weight"], np.bincount(rows.ravel(), minlength=384))
    assert known.hessians.keys() == known.fisher.keys()


def test_rows_are_drawn_by_what_the_model_says() -> None:
    """Each token by its probability given those before; whatever rank a row falls to."""
    follows = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])

    def next_logits(rows: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(follows[rows[:, -1]]).astype(np.float32)

    rows = np.concatenate(list(written(next_logits, range(40), 1000, 3)))
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (rows[:, :-1].ravel(), rows[:, 1:].ravel()), 1)
    assert np.abs(pairs / pairs.sum(1, keepdims=True) - follows).max() < 0.02
    dealt = [list(written(next_logits, share(40, rank, 3), 1000, 3)) for rank in range(3)]
    for rank in range(3):
        assert np.array_equal(np.concatenate(dealt[rank]), rows[rank::3])
    assert not np.array_equal(rows, np.concatenate(list(written(next_logits, range(40), 1000, 4))))
    with pytest.raises(ValueError, match="calibration_rows 2 must be at least one for each rank"):
        share(2, 0, 3)
