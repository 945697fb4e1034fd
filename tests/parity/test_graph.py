"""An option that is off adds no operation to the graph, on either engine; one that is on does."""

from __future__ import annotations

import importlib
import io
from functools import cache
from pathlib import Path

import pytest

from tests.parity.cases import BATCHES, CASES, QATS, RULES, recipe_of, spec_of
from tests.parity.engines import ENGINES, Run, batch_of, engine, perturbed

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "graph_nodes.txt"
AS_MANY = {  # other numbers in the same operations
    *("baseline", "untied", "other_rope_base", "partial_rope", "rope_ntk", "rope_yarn"),
    *("large_norm_eps", "large_gain", "orthogonal_init", "normal_init", "wide_mlp"),
    *("low_softcap", "parallel", "random_alone"),
}
AT_MOST = {
    "one_layer",
    "no_skips",
    "no_softcap",
    "no_rope",
    "relu",
    "one_kv_head",
    "all_heads_own_kv",
}


@cache
def nodes(name: str, case: str) -> int:
    """Operations of the forward pass to the nats."""
    recipe = recipe_of(case)
    run = Run(name, recipe, perturbed(recipe.arch))
    (x, y, _), *_ = run.put(*batch_of(spec_of(case), 2))
    if name == "mlx":
        run.trainer._load(run.trainer._weights())
        dot = io.StringIO()
        engine("mlx")  # loads the framework
        importlib.import_module("mlx.core").export_to_dot(dot, run.trainer.model.token_nats(x, y))
        return dot.getvalue().count("shape=rectangle")
    make_fx = importlib.import_module("torch.fx.experimental.proxy_tensor").make_fx
    graph = make_fx(lambda a, b: run.trainer.model.token_nats(a, b))(x, y).graph
    return sum(node.op == "call_function" for node in graph.nodes)


@pytest.mark.parametrize("name", ENGINES)
def test_the_baseline_has_as_many_operations_as_ever(name: str) -> None:
    golden = dict(line.split() for line in GOLDEN.read_text().splitlines())
    assert nodes(name, "baseline") == int(golden[name])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", [case for case in CASES if case not in (*RULES, *QATS, *BATCHES)])
def test_an_option_that_is_on_is_in_the_graph(case: str, name: str) -> None:
    found, base = nodes(name, case), nodes(name, "baseline")
    if case in AS_MANY:
        assert found == base
    elif case in AT_MOST:
        assert found <= base
    else:
        assert found > base
