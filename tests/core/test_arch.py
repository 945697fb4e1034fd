"""The architecture as data: golden tables, exact first weights, plans, counts, refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from core.arch.fields import closest, from_plain, override, parse
from core.arch.noise import normal, random_bits, stream_of, uniform
from core.arch.params import check_weights, flops_per_token, init_params, num_params, param_table
from core.arch.plan import forward_plan
from core.arch.rope import rotary_tables
from core.arch.spec import ModelSpec
from core.train.recipes import RECIPES

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TINY = {"num_layers": 2, "model_dim": 16, "num_heads": 2, "num_kv_heads": 1, "mlp_dim": 32}


def test_the_baseline_is_the_tasks() -> None:
    assert num_params(ModelSpec()) == 17_059_912
    assert round(flops_per_token(ModelSpec()) / 1e6, 1) == 130.6  # as the reference logs give it


@pytest.mark.parametrize("name", RECIPES)
def test_parameter_tables_are_golden(name: str) -> None:
    golden = (GOLDEN / f"params_{name}.txt").read_text(encoding="utf-8")
    assert table_text(RECIPES[name]().arch) == golden


def table_text(spec: ModelSpec) -> str:
    rows = (
        f"{row.name} {'x'.join(map(str, row.shape))} {row.start.kind} "
        f"{row.start.rows or row.start.scale} {row.rule} {row.role}\n"
        for row in param_table(spec)
    )
    return "".join(rows)


def test_first_weights_are_golden() -> None:
    golden = (GOLDEN / "first_weights.txt").read_text(encoding="utf-8")
    assert weights_text() == golden


def weights_text() -> str:
    tied = ModelSpec(**TINY, vocab_size=64, seq_len=16)
    untied = override(tied, ["tie_embeddings=false"], "arch")
    lines = []
    for label, spec in (("tied", tied), ("untied", untied)):
        for name, weight in init_params(spec, 1337).items():
            digest = hashlib.sha256(weight.tobytes()).hexdigest()[:16]
            lines.append(f"{label} {name} {digest}\n")
    return "".join(lines)


def test_start_values_are_the_references() -> None:
    weights = init_params(ModelSpec(), 1)
    assert abs(weights["tok_emb.weight"].std() - 0.005) < 2e-5
    assert abs(weights["tok_emb.weight"].mean()) < 2e-5
    bound = 512**-0.5
    matrix = weights["blocks.3.mlp.fc.weight"]
    assert np.abs(matrix).max() <= bound
    assert abs(matrix.std() - bound / 3**0.5) < 1e-4
    assert not weights["blocks.0.attn.proj.weight"].any()
    assert not weights["blocks.0.mlp.proj.weight"].any()
    assert (weights["blocks.0.resid_mix"][0] == 1).all()
    assert not weights["blocks.0.resid_mix"][1].any()
    assert (weights["blocks.8.attn.q_gain"] == 1.5).all()
    untied = init_params(ModelSpec(tie_embeddings=False), 1)
    assert abs(untied["tok_emb.weight"].std() - 1.0) < 5e-3
    assert not untied["lm_head.weight"].any()


def test_a_parameters_draws_are_its_own() -> None:
    few, many = (init_params(ModelSpec(num_layers=n), 7) for n in (2, 3))
    name = "blocks.1.mlp.fc.weight"
    assert few[name].tobytes() == many[name].tobytes()
    assert few[name].tobytes() != init_params(ModelSpec(num_layers=2), 8)[name].tobytes()
    assert few[name].tobytes() != few["blocks.0.mlp.fc.weight"].tobytes()


def test_noise() -> None:
    bits = random_bits(1, 2, 100_000)
    assert len(np.unique(bits)) == len(bits)
    assert (bits[:10] == random_bits(1, 2, 10)).all()  # a counter: any prefix is the same
    assert abs(np.unpackbits(bits.view(np.uint8)).mean() - 0.5) < 1e-3
    flat = uniform(1, stream_of("a"), (200, 500))
    assert flat.min() >= 0 and flat.max() < 1
    assert (flat * 2**24 == np.floor(flat * 2**24)).all()
    assert abs(flat.var() - 1 / 12) < 1e-3
    bell = normal(1, stream_of("b"), (200, 500))
    assert abs(bell.mean()) < 0.01 and abs(bell.std() - 1) < 0.01
    assert abs((bell**4).mean() / bell.var() ** 2 - 2.9) < 0.05
    assert abs(np.corrcoef(bell.ravel()[:-1], bell.ravel()[1:])[0, 1]) < 0.01


def test_the_plan_of_nine_layers() -> None:
    plan = forward_plan(ModelSpec())
    assert [(v.attn, v.mlp) for v in plan] == [(b, b) for b in range(9)]
    assert [v.push_skip for v in plan] == [True] * 4 + [False] * 5
    assert [v.pop_skip for v in plan] == [None] * 4 + [0, 1, 2, 3, None]
    assert not any(
        v.push_skip or v.pop_skip is not None for v in forward_plan(ModelSpec(skips="none"))
    )


@pytest.mark.parametrize("layers", range(1, 8))
def test_every_skip_that_is_pushed_is_popped(layers: int) -> None:
    depth = 0
    for visit in forward_plan(ModelSpec(num_layers=layers)):
        depth -= visit.pop_skip is not None
        assert depth >= 0
        depth += visit.push_skip
    assert depth == 0


def test_rotary_tables() -> None:
    cos, sin = rotary_tables(ModelSpec(rope_dims=16, seq_len=50))
    assert cos.shape == sin.shape == (50, 8) and cos.dtype == np.float32
    assert (cos[0] == 1).all() and not sin[0].any()
    angle = 49 * 10_000 ** (-2 * 3 / 16)
    assert abs(cos[49, 3] - np.cos(angle)) < 1e-7 and abs(sin[49, 3] - np.sin(angle)) < 1e-7


WRONG_SPECS = {
    "num_heads=7": "num_heads 7 must divide model_dim 512",
    "num_kv_heads=3": "num_kv_heads 3 must divide num_heads 8",
    "num_kv_heads=0": "num_kv_heads 0 must divide num_heads 8",
    "rope_dims=7": "rope_dims 7 must be even",
    "rope_dims=128": "within head_dim 64",
    "vocab_size=70000": "vocab_size 70000 exceeds 65536",
    "num_layers=0": "num_layers 0 must be at least 1",
    "norm_eps=0": "norm_eps 0.0 must be positive",
    "rope_base=nan": "rope_base nan must be positive",
    "logit_softcap=-1": "logit_softcap -1.0 must not be negative",
    "activation=gelu": "expected 'relu2' or 'leaky_relu2' or 'relu' or 'swiglu', found 'gelu'",
    "tie_embeddings=maybe": "expected bool, found 'maybe'",
    "num_layers=nine": "expected int, found 'nine'",
    "rope_dimz=4": "did you mean 'rope_dims'",
    "num_layers": "expected section.field=value",
    "num_layers.x=4": "'num_layers' is a value, not a section",
}


@pytest.mark.parametrize("change", WRONG_SPECS)
def test_a_spec_that_does_not_add_up(change: str) -> None:
    with pytest.raises(ValueError) as error:
        override(ModelSpec(), [change], "arch")
    assert WRONG_SPECS[change] in str(error.value)


def test_fields() -> None:
    assert override(ModelSpec(), ["rope_dims=none"], "arch").rope_dims is None
    assert override(ModelSpec(rope_dims=4), ["rope_dims=16"], "arch").rope_dims == 16
    assert parse(bool, "1", "x") is True
    assert from_plain(ModelSpec, {"rope_base": 500}, "x").rope_base == 500.0
    for data, message in (
        ([], "expected an object"),
        ({"num_layers": True}, "expected int, found True"),
        ({"num_layers": 2.0}, "expected int, found 2.0"),
        ({"skips": ["unet"]}, "expected 'none' or 'unet'"),
        ({"layers": 2}, "no field 'layers'"),
    ):
        with pytest.raises(ValueError, match=message):
            from_plain(ModelSpec, data, "header")
    assert closest("zzz", ["b", "a"]) == "choose from a, b"


def test_weights_that_do_not_fit() -> None:
    spec = ModelSpec(**TINY)
    weights = init_params(spec, 1)
    check_weights(weights, spec, "x")
    short = {n: w for n, w in weights.items() if n != "skip_weights"}
    with pytest.raises(ValueError, match="missing \\['skip_weights'\\]"):
        check_weights(short, spec, "x")
    with pytest.raises(ValueError, match="unknown \\['extra'\\]"):
        check_weights({**weights, "extra": weights["skip_weights"]}, spec, "x")
    with pytest.raises(ValueError, match=r"has shape \(1, 8\), expected \(1, 16\)"):
        check_weights({**weights, "skip_weights": weights["skip_weights"][:, :8]}, spec, "x")
