"""Depth programs: attention and MLP apart, what has parameters, counts, refusals, and shrinking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.depth import Pair, Phase
from core.arch.fields import changed, from_plain
from core.arch.params import flops_per_token, init_params, num_params, param_table
from core.arch.plan import forward_plan
from core.arch.spec import ModelSpec
from core.train.recipe import Recipe, from_json, to_json, with_changes
from core.train.recipes import named
from core.train.scale import scaled

TINY = {"num_layers": 2, "model_dim": 16, "num_heads": 2, "num_kv_heads": 1, "mlp_dim": 32}
TIED = (Phase(at=0.0, order=(0, Pair(attn=1, mlp=0))),)
WORD = 'arch.phases=[{"at":0,"order":[0,{"attn":1,"mlp":0}]}]'


def test_only_what_an_order_uses_has_parameters() -> None:
    spec = ModelSpec(**TINY, phases=TIED, routing="lanes", routing_start=1, ln_scale=True)
    names = {row.name for row in param_table(spec)}
    of_second = {"resid_mix", "attn_scale", "attn.q_gain"}
    of_second |= {f"attn.{name}.weight" for name in ("c_q", "c_k", "c_v", "proj")}
    assert {n for n in names if n.startswith("blocks.1.")} == {f"blocks.1.{n}" for n in of_second}
    plain = ModelSpec(**TINY)
    kept = {row.name: row for row in param_table(plain) if row.name in names}
    table = {row.name: row for row in param_table(spec)}
    assert all(table[name] == row for name, row in kept.items()), "the rest is as it was"
    first, whole = init_params(spec, 3), init_params(plain, 3)
    assert all(first[name].tobytes() == whole[name].tobytes() for name in kept)


def test_a_visit_names_both_blocks() -> None:
    spec = ModelSpec(
        **{**TINY, "num_layers": 3},
        phases=(Phase(at=0.0, order=(0, Pair(attn=1, mlp=2), Pair(attn=2, mlp=0))),),
        routing="parallel",
        routing_start=2,
    )
    plan = forward_plan(spec)
    assert [(v.attn, v.mlp) for v in plan] == [(0, 0), (1, 2), (2, 0)]
    assert [v.route for v in plan] == ["serial", "serial", "parallel"], "by the attention's block"


def test_flops_count_visits_and_parameters_blocks() -> None:
    plain, tied = ModelSpec(**TINY), ModelSpec(**TINY, phases=TIED)
    assert flops_per_token(tied) == flops_per_token(plain)
    mlp = 2 * 16 * 32 + 16
    assert num_params(plain) - num_params(tied) == mlp
    again = (Phase(at=0.0, order=(0, Pair(attn=1, mlp=0), Pair(attn=1, mlp=0))),)
    visit = 6 * (2 * 16 * 16 + 2 * 8 * 16 + 2 * 16 * 32) + 12 * 16 * 1025 // 2
    assert flops_per_token(ModelSpec(**TINY, phases=again)) - flops_per_token(tied) == visit


def test_json_and_the_command_line() -> None:
    recipe = with_changes(Recipe(), ["arch.num_layers=2", WORD])
    assert recipe.arch.phases == TIED
    assert from_json(to_json(recipe), "x") == recipe
    assert changed(recipe.arch)["phases"] == ({"at": 0.0, "order": (0, {"attn": 1, "mlp": 0})},)
    assert from_plain(ModelSpec, changed(recipe.arch), "header") == recipe.arch
    assert with_changes(recipe, ["arch.mlp_dim=64"]).arch.phases == TIED


WRONG = {
    '[{"at":0,"order":[0,"a"]}]': "order[1]: expected int or {attn, mlp}, found 'a'",
    '[{"at":0,"order":[0,true]}]': "order[1]: expected int or {attn, mlp}, found True",
    '[{"at":0,"order":[0,{"attn":1}]}]': "order[1]: 'mlp' is missing",
    '[{"at":0,"order":[0,{"attn":1,"mpl":0}]}]': "no field 'mpl'; did you mean 'mlp'?",
    '[{"at":0,"order":[0,{"attn":"1","mlp":0}]}]': "order[1].attn: expected int, found '1'",
    '[{"at":0,"order":[0,{"attn":1,"mlp":1}]}]': "of one block are its number: write 1",
    '[{"at":0,"order":[0,{"attn":2,"mlp":0}]}]': "blocks [2] in the order, expected some of 0 to 1",
    '[{"at":0,"order":[0,{"attn":1,"mlp":-1}]}]': "blocks [-1] in the order",
    '[{"at":0,"order":[0,0]}]': "the last order has 1 blocks, expected all num_layers 2",
    '[{"at":0,"order":[0,1]},{"at":0.5,"order":[0,{"attn":1,"mlp":0}]}]': "the last order has no "
    "MLP of blocks [1]: what is trained must be in what is packed",
    '[{"at":0,"order":[0,1]},{"at":0.5,"order":[1,{"attn":1,"mlp":0}]}]': "no attention of "
    "blocks [0]",
    '[{"at":0}]': "phases[0]: 'order' is missing",
    "[0]": "phases[0]: expected an object with fields, found int",
    "0": "arch.phases: expected a list of {at, order}, found '0'",
}


@pytest.mark.parametrize("value", WRONG)
def test_programs_that_do_not_add_up(value: str) -> None:
    with pytest.raises(ValueError) as error:
        with_changes(Recipe(), ["arch.num_layers=2", f"arch.phases={value}"])
    assert WRONG[value] in str(error.value)


def test_scales_of_visits_are_of_the_longest_order() -> None:
    phases = (Phase(at=0.0, order=(0, 1)), Phase(at=0.5, order=(0, 1, 0, 1)))
    spec = ModelSpec(**TINY, phases=phases, visit_scale=True)
    (row,) = (row for row in param_table(spec) if row.name == "visit_scale")
    assert (row.shape, row.rule, row.role) == ((4, 2), "scalar", "control")
    assert np.array_equal(init_params(spec, 1)["visit_scale"], np.ones((4, 2)))


@st.composite
def programs(draw: st.DrawFn) -> ModelSpec:
    """Any order of any pairs, its blocks numbered anew without gaps."""
    blocks = st.integers(0, 11)
    pairs = draw(st.lists(st.tuples(blocks, blocks), min_size=1, max_size=24))
    number = {block: i for i, block in enumerate(sorted({b for pair in pairs for b in pair}))}
    new = [(number[attn], number[mlp]) for attn, mlp in pairs]
    order = tuple(a if a == m else Pair(attn=a, mlp=m) for a, m in new)
    phases = (Phase(at=0.0, order=order[:1]), Phase(at=0.5, order=order))
    return ModelSpec(
        num_layers=len(number),
        phases=phases,
        skips="none",
        xsa_last=draw(st.integers(0, len(number))),
        value_embed_dim=8,
        value_embed_last=draw(st.integers(0, len(number))),
        routing="lanes",
        routing_start=draw(st.integers(0, len(number))),
    )


@settings(max_examples=300, deadline=None)
@given(programs(), st.integers(1, 12))
def test_a_program_shrinks(spec: ModelSpec, layers: int) -> None:
    """What was shared still is; a small program is not shrunk again."""
    recipe, to = Recipe(arch=spec), Recipe(arch=ModelSpec(num_layers=layers))
    small = scaled(recipe, to)
    assert small.arch.num_layers <= min(layers, spec.num_layers)
    assert num_params(small.arch) <= num_params(spec)
    if small.arch.num_layers == spec.num_layers:
        assert small.arch.phases == spec.phases
    elif layers > 1:
        for blocks in ("attn_blocks", "mlp_blocks"):
            shared = len(getattr(spec, blocks)) < spec.num_layers
            still = len(getattr(small.arch, blocks)) < min(layers, spec.num_layers)
            assert still or not shared
    again = scaled(small, to)
    assert replace(again, name=small.name) == small


def test_a_shared_attention_is_still_shared_when_few_blocks_are_left() -> None:
    phases = (Phase(at=0.0, order=(0, 1, 2, Pair(attn=2, mlp=3), 4)),)
    recipe = Recipe(arch=ModelSpec(num_layers=5, phases=phases))
    small = scaled(recipe, replace(named("small"), arch=ModelSpec(num_layers=3)))
    assert small.arch.phases[0].order == (0, 1, Pair(attn=1, mlp=2))
