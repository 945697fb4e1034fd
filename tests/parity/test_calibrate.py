"""The taps of both engines against what the numpy oracle multiplies each matrix with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.arch.params import Weights
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.train.calibration import HEAD, tapped
from tests.parity import oracle
from tests.parity.cases import spec_of
from tests.parity.engines import ENGINES, Rows, batch_of, engine, perturbed

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
