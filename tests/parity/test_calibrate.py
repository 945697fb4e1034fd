"""The taps of both engines against what the numpy oracle multiplies each matrix with."""

from __future__ import annotations

import importlib
import itertools
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from core.arch.params import Weights, param_table
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.train.calibration import (
    AT_ONCE_TOKENS,
    FISHER_TOKENS,
    HEAD,
    drawer,
    first_rows,
    tapped,
    weighed,
)
from tests.parity import oracle
from tests.parity.cases import spec_of
from tests.parity.engines import ENGINES, Rows, batch_of, engine, perturbed, to_numpy

CASES = (
    *("baseline", "untied", "factored", "looped", "partial_tying", "swiglu", "attn_gate"),
    *("lanes_in_turn", "random", "r1061"),
)
ALL = Quant(keep_below=1)  # small matrices too
BOUND = 1e-5  # relative to the largest moment: products and sums of fp32 inputs


def moments_of(name: str, spec: ModelSpec, batches: list[Rows], group: Any = None) -> Any:
    """As the engine has them, and its model."""
    parts = engine(name)
    model = parts.evaluate.open_evaluator(perturbed(spec), spec, "fp32").model
    leaves = sorted(set(tapped(spec, ALL).values()))
    rows = [parts.array(batch) for batch in batches]
    found = parts.calibrate.moments(model, rows, leaves, group or parts.distributed.Solo())
    return found, model


def expected(spec: ModelSpec, batches: list[Rows], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Mean of x x^T for each matrix of a block by its name, and for the head."""
    sums: dict[str, Any] = {}
    product = oracle.product

    def add(name: str, x: Any) -> None:
        rows = x.reshape(-1, x.shape[-1])
        sums[name] = sums.get(name, 0) + rows.T @ rows

    def heard(w: Weights, name: str, x: Any, *rest: Any) -> Any:
        add(name, x)
        return product(w, name, x, *rest)

    monkeypatch.setattr(oracle, "product", heard)
    weights = {name: weight.astype(np.float64) for name, weight in perturbed(spec).items()}
    for batch in batches:
        out = oracle.through(weights, batch, spec, oracle.order_of(spec, -1))
        out = oracle.norm(out, spec.norm_eps)
        add(HEAD, out @ weights["embed_out.weight"].T if spec.embed_dim is not None else out)
    tokens = sum(batch.size for batch in batches)
    return {name: total / tokens for name, total in sums.items()}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("precision", ["autocast", "cast"])
def test_inputs_in_bf16_are_summed_in_fp32(
    name: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summed in bf16 they would be off by 2e-3."""
    torch: Any = importlib.import_module("torch")
    parts, spec = engine(name), spec_of("baseline")
    model = parts.evaluate.open_evaluator(perturbed(spec), spec, precision).model
    plain, gaps = parts.calibrate.gram, list[float]()

    def heard(x: Any) -> Any:
        wide = to_numpy(x.float() if name == "torch" else x.astype(parts.array(0.0).dtype))
        rows = torch.tensor(wide).bfloat16().double().numpy().reshape(-1, x.shape[-1])
        found, right = plain(x), rows.T @ rows
        gaps.append(float(np.abs(to_numpy(found) - right).max() / np.abs(right).max()))
        return found

    monkeypatch.setattr(parts.calibrate, "gram", heard)
    leaves = sorted(set(tapped(spec, ALL).values()))
    rows = parts.array(batch_of(spec, 4)[0])
    parts.calibrate.moments(model, [rows], leaves, parts.distributed.Solo())
    assert len(gaps) == len(leaves) and max(gaps) <= 1e-6


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_the_moments_are_those_of_the_inputs(
    case: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(case)
    batches = [batch_of(spec, 2, seed)[0] for seed in range(2)]
    found, _ = moments_of(name, spec, batches)
    wanted = expected(spec, batches, monkeypatch)
    assert HEAD in found and len(found) > 2
    for weight, leaf in tapped(spec, ALL).items():
        matrix = HEAD if leaf == HEAD else weight.removesuffix(".weight")
        if matrix.endswith(".up"):  # of an adapter: behind a product that the oracle has in one
            continue
        truth = wanted[matrix.removesuffix(".down")]
        assert np.abs(found[leaf] - truth).max() <= BOUND * np.abs(truth).max(), weight


@pytest.mark.parametrize("name", ENGINES)
def test_the_model_is_as_it_was_also_behind_an_error(name: str) -> None:
    spec = spec_of("baseline")
    x, y = batch_of(spec, 2)
    before = engine(name).evaluate.open_evaluator(perturbed(spec), spec, "fp32").nats(x, y)
    _, model = moments_of(name, spec, [x])
    parts = engine(name)
    assert np.array_equal(parts.evaluate.Evaluator(model).nats(x, y), before)
    with pytest.raises((AttributeError, ValueError)):
        parts.calibrate.moments(model, ["no tokens"], [HEAD], parts.distributed.Solo())
    assert np.array_equal(parts.evaluate.Evaluator(model).nats(x, y), before)


@pytest.mark.parametrize("name", ENGINES)
def test_ranks_add_up_all_their_tokens(name: str) -> None:
    """Two ranks of which one has no rows, as one process."""
    spec = spec_of("baseline")
    x = batch_of(spec, 3)[0]
    alone, _ = moments_of(name, spec, [x])
    solo = engine(name).distributed.Solo

    class Both(solo):  # type: ignore[misc, valid-type]
        """Sums as if another rank had taken the first row alone."""

        def sum(self, arrays: dict[str, Any]) -> dict[str, Any]:
            return {key: array + held[key] for key, array in arrays.items()}

    held: dict[str, Any] = {}

    class First(solo):  # type: ignore[misc, valid-type]
        """Keeps what it would send."""

        def sum(self, arrays: dict[str, Any]) -> dict[str, Any]:
            held.update(arrays)
            return arrays

    moments_of(name, spec, [x[:1]], First())
    together, _ = moments_of(name, spec, [x[1:]], Both())
    for leaf, truth in alone.items():
        assert np.abs(together[leaf] - truth).max() <= BOUND * np.abs(truth).max()
    moments_of(name, spec, [], First())
    again, _ = moments_of(name, spec, [x], Both())
    assert all(np.array_equal(again[leaf], alone[leaf]) for leaf in alone)


SQUARES = 2e-3  # relative to the largest: squares of fp32 gradients against finite differences
STEP = 1e-5  # of those, in float64
LEAVES = ("blocks.0.attn.c_k", "blocks.1.attn.proj", "blocks.1.mlp.fc")


def worth_of(name: str, spec: ModelSpec, batches: list[tuple[Rows, Rows]]) -> Any:
    """As the engine has it for all leaves, of tokens that are told and not drawn."""
    parts = engine(name)
    model = parts.evaluate.open_evaluator(perturbed(spec), spec, "fp32").model
    leaves = sorted(set(weighed(spec, ALL).values()))
    told = iter([y for _, y in batches])
    group, rows = parts.distributed.Solo(), [parts.array(x) for x, _ in batches]
    return parts.calibrate.fisher(model, rows, leaves, group, lambda _: next(told)), model


def differences(spec: ModelSpec, leaf: str, channel: int, x: Rows, y: Rows) -> float:
    """Mean squared gradient of one output, moved at each token and visit in turn: the oracle's."""
    weights = {key: weight.astype(np.float64) for key, weight in perturbed(spec).items()}
    squares = []
    visits = sum(f"{name}.attn" in leaf or f"{name}.mlp" in leaf for name in order_names(spec))
    for at in np.ndindex(visits, *x.shape):
        moved = []
        for by in (STEP, -STEP):
            with patch.object(oracle, "product", shifted(oracle.product, leaf, (*at, channel), by)):
                moved.append(oracle.nats(weights, spec, x, y).sum())
        squares.append(((moved[0] - moved[1]) / (2 * STEP)) ** 2)
    return float(np.mean(squares))


def shifted(product: Any, leaf: str, at: tuple[int, ...], by: float) -> Any:
    """The oracle's product, with one output (visit, row, place, channel) of a leaf moved."""
    seen = itertools.count()

    def moved(w: Any, name: str, *rest: Any) -> Any:
        out = product(w, name, *rest)
        if name == leaf and next(seen) == at[0]:
            out[at[1:]] += by
        return out

    return moved


def order_names(spec: ModelSpec) -> list[str]:
    """The block of each visit's attention, as its parameters are named."""
    return [f"blocks.{visit[0]}" for visit in oracle.order_of(spec, -1)]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", ["baseline", "looped"])
def test_the_worth_of_outputs_is_their_squared_gradient(case: str, name: str) -> None:
    spec = spec_of(case)
    x, y = batch_of(spec, 1, 5)
    found, _ = worth_of(name, spec, [(x, y)])
    for leaf in LEAVES:
        for channel in (0, 3):
            truth = differences(spec, leaf, channel, x, y)
            assert abs(found[leaf][channel] - truth) <= SQUARES * found[leaf].max(), leaf


@pytest.mark.parametrize("case", CASES)
def test_both_engines_find_the_same_worth(case: str) -> None:
    """Of every matrix, of two batches; and the model is as it was."""
    spec = spec_of(case)
    batches = [batch_of(spec, 2, seed) for seed in range(2)]
    (found, model), (other, _) = (worth_of(name, spec, batches) for name in ENGINES)
    shapes = {row.name: row.shape for row in param_table(spec)}
    for weight, leaf in weighed(spec, ALL).items():
        assert found[leaf].shape == (shapes[weight][0],) and found[leaf].max() > 0
        assert np.abs(found[leaf] - other[leaf]).max() <= 1e-4 * other[leaf].max(), weight
    (x, y), parts = batches[0], engine(ENGINES[0])
    before = parts.evaluate.open_evaluator(perturbed(spec), spec, "fp32").nats(x, y)
    assert np.array_equal(parts.evaluate.Evaluator(model).nats(x, y), before)


def test_tokens_are_drawn_as_likely_as_they_are() -> None:
    """Other ones each time and on each rank, the same ones by the same seed."""
    wanted = np.array([0.5, 0.0, 0.2, 0.3])
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.broadcast_to(wanted, (40, 500, 4))).astype(np.float32)
    draw = drawer(7, 0)
    first, second = draw(log_probs), draw(log_probs)
    share = np.bincount(first.ravel(), minlength=4) / first.size
    assert np.abs(share - wanted).max() < 0.01 and share[1] == 0
    assert (first != second).any() and (first != drawer(7, 1)(log_probs)).any()
    assert np.array_equal(first, drawer(7, 0)(log_probs))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_so_many_tokens_are_weighed_among_all_ranks(world_size: int) -> None:
    batches = [np.full((rows, 512), rows) for rows in (5, 16, 30)]
    given = list(first_rows(batches, 512, world_size))
    tokens = sum(rows.size for rows in given) * world_size
    assert FISHER_TOKENS <= tokens < FISHER_TOKENS + 512 * world_size
    assert max(rows.size for rows in given) <= AT_ONCE_TOKENS
    assert given[0].shape == (5, 512) and (given[0] == 5).all()
    assert sum(map(len, first_rows(batches[:1], 512, 1))) == 5, "a rank without more"


def test_whose_inputs_are_wanted() -> None:
    """q, k and v share theirs; what is fp16, or ternary, or a table alone has none."""
    spec = spec_of("baseline")
    leaves = tapped(spec, ALL)
    assert leaves["tok_emb.weight"] == HEAD
    assert {leaves[f"blocks.0.attn.{c}.weight"] for c in ("c_q", "c_k", "c_v")} == {
        "blocks.0.attn.c_q"
    }
    assert leaves["blocks.1.mlp.proj.weight"] == "blocks.1.mlp.proj"
    assert "tok_emb.weight" not in tapped(spec_of("untied"), ALL)
    assert tapped(spec_of("untied"), ALL)["lm_head.weight"] == HEAD
    assert not tapped(spec, Quant())  # so small that all of it is fp16
    ternary = Quant(keep_below=1, attn="ternary", mlp="ternary")
    assert set(tapped(spec_of("ternary"), ternary)) == {"tok_emb.weight"}
