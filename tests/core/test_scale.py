"""A recipe shrunk: valid, smaller in every size, and the same in everything else."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.arch.params import num_params, param_table
from core.arch.plan import forward_plan
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant, stored_format
from core.data.batches import BatchPhase, Data
from core.data.loaders import Loader
from core.score.scoring import Score
from core.train.recipe import Optim, Recipe, Schedule
from core.train.recipes import RECIPES, for_memory, named
from core.train.scale import scaled

GIB = 1 << 30
SMALLER = {  # where 0 is no limit, it is the largest
    "arch": ("num_layers", "model_dim", "num_heads", "num_kv_heads", "mlp_dim", "seq_len"),
    "optim": ("momentum_warmup_steps",),
    "schedule": ("steps", "budget_s", "warmdown", "log_every_steps"),
    "data": ("train_batch_tokens", "micro_batch"),
    "quant": ("keep_below",),
    "score": ("batch",),
}
GATES = ("embed_dim", "attn_gate_dims", "smear_dims", "adapter_rank", "value_embed_last")
SIZES = SMALLER | {
    "arch": (*SMALLER["arch"], "rope_dims", "phases", "xsa_last", "routing_start", *GATES),
    "data": (*SMALLER["data"], "batch_schedule"),
    "score": ("batch", "limit_tokens", "subset", "val_every_steps"),
}
NO_LIMIT = {"budget_s", "micro_batch"}


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    head_dim = draw(st.sampled_from([2, 8, 24, 48, 64, 96, 128, 256]))
    group, kv_heads = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    dim = head_dim * group * kv_heads
    assume(dim <= 4096)
    rope_dims = draw(st.none() | st.integers(0, head_dim // 2).map(lambda half: 2 * half))
    return ModelSpec(
        vocab_size=draw(st.sampled_from([256, 1024, 8192])),
        num_layers=draw(st.integers(1, 24)),
        model_dim=dim,
        num_heads=group * kv_heads,
        num_kv_heads=kv_heads,
        mlp_dim=draw(st.integers(1, 4)) * dim,
        seq_len=draw(st.sampled_from([64, 256, 1024, 2048])),
        rope_dims=rope_dims,
        tie_embeddings=draw(st.booleans()),
        activation=draw(st.sampled_from(["relu2", "leaky_relu2"])),
        skips=draw(st.sampled_from(["none", "unet"])),
        logit_softcap=draw(st.sampled_from([0.0, 15.0, 30.0])),
    )


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    arch = draw(specs())
    unit, warmdown = draw(
        st.sampled_from([("frac", 0.3), ("steps", 1200.0), ("seconds", 100.0), ("steps", 0.0)])
    )
    return Recipe(
        name="any",
        precision=draw(st.sampled_from(["autocast", "fp32"])),
        arch=arch,
        optim=Optim(
            matrix_lr=draw(st.floats(0.001, 0.1)), ns_table="quintic", grad_clip_norm=draw(NORMS)
        ),
        schedule=Schedule(
            steps=draw(st.integers(1, 50_000)),
            budget_s=draw(st.sampled_from([0.0, 60.0, 600.0, 4800.0])),
            warmdown=warmdown,
            warmdown_unit=unit,
        ),
        data=Data(
            train_batch_tokens=arch.seq_len * draw(st.integers(1, 768)),
            micro_batch=draw(st.sampled_from([0, 1, 64])),
            loader=draw(st.sampled_from(get_args(Loader))),
        ),
        quant=Quant(
            keep_below=draw(st.sampled_from([0, 65_537])), mlp=draw(st.sampled_from(FORMATS))
        ),
        score=draw(scores()),
    )


@st.composite
def scores(draw: st.DrawFn) -> Score:
    subset = draw(st.sampled_from(["full", "first-262k"]))
    return Score(
        batch=draw(st.integers(1, 128)),
        val_every_steps=draw(st.sampled_from([0, 100, 4000])),
        subset=subset,
        limit_tokens=draw(st.sampled_from([0, 1000, 10_000_000])) if subset == "full" else 0,
    )


NORMS = st.sampled_from([0.0, 0.3, 1.0])
FORMATS = ["int8", "fp16"]
budgets = st.sampled_from([named(name) for name in RECIPES])


def without_sizes(recipe: Recipe) -> dict[str, Any]:
    plain = asdict(recipe)
    del plain["name"]
    for section, names in SIZES.items():
        for name in names:
            del plain[section][name]
    for part, name in (("sgd", "chunk_tokens"), ("lora", "rank"), ("lora", "alpha")):
        del plain["score"][part][name]
    return plain


@settings(max_examples=200, deadline=None)
@given(recipe=recipes(), to=budgets)
def test_only_sizes_shrink(recipe: Recipe, to: Recipe) -> None:
    small = scaled(recipe, to)
    assert without_sizes(small) == without_sizes(recipe)
    for section, names in SMALLER.items():
        for name in names:
            was, now, most = (
                getattr(getattr(r, section), name) or (float("inf") if name in NO_LIMIT else 0)
                for r in (recipe, small, to)
            )
            assert now <= was, (section, name)
            if name in {"num_layers", "model_dim", "seq_len", "steps", "train_batch_tokens"}:
                assert now <= most, (section, name)
    assert num_params(small.arch) <= num_params(recipe.arch)
    lora, was_lora = small.score.lora, recipe.score.lora
    assert 1 <= lora.rank <= was_lora.rank, "a narrower model has narrower adapters ..."
    assert lora.alpha * was_lora.rank == pytest.approx(was_lora.alpha * lora.rank)
    rows = recipe.score.sgd.chunk_tokens / recipe.arch.seq_len
    assert abs(small.score.sgd.chunk_tokens / small.arch.seq_len - rows) < 1, "... and chunks"
    own, whole = (recipe.score, Score())
    part = to.score if (own.subset, own.limit_tokens) == (whole.subset, whole.limit_tokens) else own
    assert small.score.subset == part.subset and small.score.limit_tokens == part.limit_tokens


@settings(max_examples=200, deadline=None)
@given(recipe=recipes(), to=budgets)
def test_proportions_are_kept(recipe: Recipe, to: Recipe) -> None:
    was, now = recipe.arch, scaled(recipe, to).arch
    assert now.num_heads * was.num_kv_heads == was.num_heads * now.num_kv_heads
    assert abs(now.mlp_dim - was.mlp_dim * now.model_dim / was.model_dim) <= 0.5
    group_dims = was.head_dim * was.num_heads // was.num_kv_heads
    if group_dims <= min(was.model_dim, to.arch.model_dim):
        assert now.head_dim == was.head_dim and now.rope_dims == was.rope_dims
        assert now.model_dim > min(was.model_dim, to.arch.model_dim) - group_dims, "as wide as fits"
    elif was.rope_dims:
        assert abs(now.rope_dims - was.rope_dims * now.head_dim / was.head_dim) <= 2
    assert bool(now.rope_dims) == bool(was.rope_dims)


@settings(max_examples=200, deadline=None)
@given(recipe=recipes(), to=budgets)
def test_what_was_quantized_still_is_and_twice_is_once(recipe: Recipe, to: Recipe) -> None:
    small = scaled(recipe, to)
    before = {row.name: stored_format(row, recipe.quant) for row in param_table(recipe.arch)}
    for row in param_table(small.arch):
        assert before[row.name] == "fp16" or stored_format(row, small.quant) == before[row.name]
    again = scaled(small, to)
    assert replace(again, name=small.name) == small


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([60, 64, 1024, 2048]),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 11)), min_size=1, max_size=4),
    budgets,
)
def test_a_batch_schedule_shrinks_in_every_phase(
    seq_len: int, sizes: list[tuple[int, int]], to: Recipe
) -> None:
    """Also to rows of a length that shares few divisors with the old."""
    lengths = [n for n in range(1, seq_len + 1) if seq_len % n == 0]
    phases = [
        BatchPhase(
            at=i / 10, train_batch_tokens=rows * seq_len, seq_len=lengths[kind % len(lengths)]
        )
        for i, (rows, kind) in enumerate(sizes)
    ]
    data = Data(train_batch_tokens=40 * seq_len, batch_schedule=tuple(phases))
    arch = ModelSpec(seq_len=seq_len)
    for smaller in (to, replace(to, arch=replace(to.arch, seq_len=to.arch.seq_len // 32))):
        recipe = Recipe(arch=arch, data=data)
        small = scaled(recipe, smaller)
        assert small.data.phases(small.arch.seq_len) == small.data.batch_schedule
        for was, now in zip(phases, small.data.batch_schedule, strict=True):
            assert now.at == was.at
            assert now.seq_len <= was.seq_len
            assert now.train_batch_tokens <= was.train_batch_tokens
            assert (now.seq_len == small.arch.seq_len) or was.seq_len < seq_len
        assert replace(scaled(small, smaller), name=small.name) == small


def test_a_batch_schedule_keeps_its_proportions() -> None:
    schedule = (
        BatchPhase(at=0.0, train_batch_tokens=131_072, seq_len=256),
        BatchPhase(at=0.5, train_batch_tokens=524_288, seq_len=1024),
    )
    recipe = replace(named("baseline"), data=Data(batch_schedule=schedule))
    first, second = scaled(recipe, named("mac-8g")).data.batch_schedule
    assert (first.train_batch_tokens, first.seq_len) == (2048, 128)
    assert (second.train_batch_tokens, second.seq_len) == (8192, 512)


def test_the_baseline_on_a_mac() -> None:
    small = scaled(named("baseline"), named("mac-8g"))
    assert small.name == "baseline-mac-8g"
    assert (small.arch.num_layers, small.arch.model_dim, small.arch.num_heads) == (6, 384, 6)
    assert (small.arch.num_kv_heads, small.arch.mlp_dim, small.arch.seq_len) == (3, 768, 512)
    assert small.data.train_batch_tokens == 8192 and small.schedule.steps == 2000
    assert (small.schedule.warmdown, small.optim.momentum_warmup_steps) == (120.0, 50)
    assert small.optim.matrix_lr == 0.04 and small.quant.scale_floor == 1 / 127
    assert scaled(small, named("mac-32g")).arch == small.arch, "nothing grows"


@pytest.mark.parametrize(
    ("gib", "name"), [(8, "mac-8g"), (11, "mac-8g"), (16, "mac-16g"), (24, "mac-32g")]
)
def test_the_preset_of_a_memory(gib: int, name: str) -> None:
    assert for_memory(gib * GIB) == named(name) == named(name.replace("-", "_"))


def test_presets_are_for_8k_to_32k_tokens_a_step() -> None:
    presets = [named(name) for name in ("mac-8g", "mac-16g", "mac-32g")]
    assert [p.data.train_batch_tokens for p in presets] == [8_192, 16_384, 32_768]
    assert all(p.score.subset == "spread-1m" and p.schedule.budget_s == 600 for p in presets)
    rates = [p.optim.matrix_lr for p in presets]
    assert rates == sorted(rates) and rates[-1] < named("baseline").optim.matrix_lr


@pytest.mark.parametrize("size", ["smoke", "small", "mac-8g", "mac-32g"])
@pytest.mark.parametrize("name", ["r1081", "r1061", "universal"])
def test_every_technique_of_the_frontier_is_still_in_it(name: str, size: str) -> None:
    recipe, small = named(name), scaled(named(name), named(size))
    was, now = forward_plan(recipe.arch), forward_plan(small.arch)
    assert {visit.route for visit in now} == {visit.route for visit in was}
    assert len(now) > small.arch.num_layers, "blocks are visited again"
    assert len(small.arch.phases) == len(recipe.arch.phases)
    assert bool(small.arch.xsa_last) == bool(recipe.arch.xsa_last)
    assert without_sizes(small) == without_sizes(recipe)
    parameters = {row.name for row in param_table(small.arch)}
    missing = {row.name for row in param_table(recipe.arch)} - parameters
    assert all(name.startswith("blocks.") for name in missing)
