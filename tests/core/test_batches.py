"""Batches: a pure function of the step, whatever the ranks, shards and micro-batches."""

import hashlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from core.arch.noise import random_bits
from core.arch.spec import ModelSpec
from core.data.batches import BatchPhase, Data, batch, batch_at, micro_batches
from core.data.loaders import Loader, order_of
from core.data.shards import TokenStream
from core.train.recipe import Recipe, from_json, recipe_hash, to_json, with_changes
from tests.parity.engines import ENGINES, engine, to_numpy

TOKENS = (random_bits(1, 0, 10_000) % np.uint64(1024)).astype(np.uint16)
STREAM = TokenStream(np.split(TOKENS, [3000, 3001, 9000]))
SIZES = {"seq_len": 64, "train_batch_tokens": 640, "vocab_size": 1024}  # 156 rows, 10 a step


def _take(step, stream=STREAM, **changes):
    return batch(stream, step, **{**SIZES, **changes})


@pytest.mark.parametrize("step", [0, 1, 14, 15, 16, 1000])
def test_rows_follow_one_another_and_wrap(step):
    x, y = _take(step)
    assert x.dtype == y.dtype == np.int32
    assert x.shape == y.shape == (10, 64)
    for i in range(10):
        at = (step * 10 + i) % 156 * 64
        assert np.array_equal(x[i], TOKENS[at : at + 64])
        assert np.array_equal(y[i], TOKENS[at + 1 : at + 65])


def test_it_depends_on_nothing_but_its_arguments():
    whole = TokenStream([TOKENS])
    for step in (7, 0, 7):
        for mine, theirs in zip(_take(step), _take(step, whole), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 10, 13])
def test_the_ranks_together_take_the_one_rank_batch(world_size):
    parts = [_take(15, rank=rank, world_size=world_size) for rank in range(world_size)]
    for mine, whole in zip(zip(*parts, strict=True), _take(15), strict=True):
        assert np.array_equal(np.concatenate(mine), whole)
    sizes = [len(x) for x, _ in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("micro_batch", "sizes"), [(0, [10]), (1, [1] * 10), (4, [4, 4, 2]), (99, [10])]
)
def test_micro_batches_are_the_rows_in_order(micro_batch, sizes):
    x, y = _take(3)
    parts = micro_batches(x, y, micro_batch)
    assert [len(part) for part, _ in parts] == sizes
    assert np.array_equal(np.concatenate([part for part, _ in parts]), x)
    assert np.array_equal(np.concatenate([part for _, part in parts]), y)
    assert micro_batches(x[:0], y[:0], micro_batch) == []


def test_one_row_of_data_is_enough():
    x, y = _take(5, TokenStream([TOKENS[:65]]))
    assert np.array_equal(x, np.tile(TOKENS[:64], (10, 1)))
    assert np.array_equal(y, np.tile(TOKENS[1:65], (10, 1)))
    for size in (0, 64):
        with pytest.raises(ValueError, match=f"too little data: {size} tokens.* needs 65"):
            _take(0, TokenStream([TOKENS[:size]]))


@pytest.mark.parametrize(("tokens", "hint"), [(650, 640), (63, 64)])
def test_a_step_is_a_whole_number_of_rows(tokens, hint):
    with pytest.raises(
        ValueError, match=f"{tokens} must be a multiple of arch.seq_len 64; try {hint}"
    ):
        _take(0, train_batch_tokens=tokens)


def test_a_foreign_token_is_refused_where_it_stands():
    tokens = TOKENS.copy()
    tokens[700] = 1024  # first in row 10, and the last target of row 9 is at 640
    stream = TokenStream([tokens])
    _take(0, stream)
    with pytest.raises(
        ValueError, match=r"token 1024.* vocabulary .* tokenizer do not belong together"
    ):
        _take(1, stream)
    tokens[640] = 2000  # a target only of step 0
    with pytest.raises(ValueError, match="token 2000"):
        _take(0, stream)


def test_golden_batches():
    lines = Path(__file__).parents[1].joinpath("golden/batches.txt").read_text().splitlines()
    golden = dict(line.split() for line in lines if not line.startswith("#"))
    found = {}
    for step in (0, 1, 15, 1000):
        joined = np.stack(_take(step)).astype("<i4").tobytes()
        found[f"step_{step}"] = hashlib.sha256(joined).hexdigest()
    assert found == golden


@pytest.mark.parametrize(
    ("field", "value"),
    [("path", ""), ("tokenizer", ""), ("train_batch_tokens", 0), ("micro_batch", -1)],
)
def test_a_data_section_that_does_not_add_up(field, value):
    assert Data().train_batch_tokens == 524_288
    with pytest.raises(ValueError, match=f"data: {field}"):
        Data(**{field: value})


def _fed(name, recipe, world_size, tokens_done=None, phase=0, step=None):
    """x and y as the feeders of all ranks hand them over, in order: (2, rows, T)."""
    modules, parts = engine(name), []
    for rank in range(world_size):
        group = modules.distributed.Solo()
        group.rank, group.world_size = rank, world_size
        feeder = modules.feeder.Feeder(STREAM, recipe, group)
        given = feeder.batch_at(tokens_done, phase) if step is None else feeder.batch(step)
        parts += [(to_numpy(part.x), to_numpy(part.y)) for part in given]
    return np.stack([np.concatenate(side) for side in zip(*parts, strict=True)])


def _recipe(**data):
    arch = ModelSpec(vocab_size=1024, seq_len=64, model_dim=64, num_heads=2, num_kv_heads=1)
    return Recipe(seed=9, arch=arch, data=Data(**{"train_batch_tokens": 640, **data}))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("loader", get_args(Loader))
def test_the_feeders_of_both_engines_give_the_batches_of_core(name, loader):
    for world_size, micro_batch in ((1, 0), (1, 3), (3, 2), (13, 1)):
        recipe = _recipe(loader=loader, micro_batch=micro_batch)
        for step in (0, 15, 300):
            whole = np.stack(batch(STREAM, step, loader=loader, seed=9, **SIZES))
            assert np.array_equal(_fed(name, recipe, world_size, step=step), whole)
            assert np.array_equal(_fed(name, recipe, world_size, step * 640), whole)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("loader", get_args(Loader))
def test_the_feeders_follow_a_batch_schedule(name, loader):
    schedule = (
        BatchPhase(at=0.0, train_batch_tokens=256, seq_len=16),
        BatchPhase(at=0.5, train_batch_tokens=640, seq_len=64),
    )
    order = order_of(loader, STREAM, 64, 9)
    for phase, size in enumerate(schedule):
        sizes = {"train_batch_tokens": size.train_batch_tokens, "seq_len": size.seq_len}
        for done in (0, 64 * 7, 64 * 1000):
            whole = np.stack(batch_at(order, done, vocab_size=1024, **sizes))
            for world_size, micro_batch in ((1, 0), (2, 1), (3, 2)):
                recipe = _recipe(loader=loader, micro_batch=micro_batch, batch_schedule=schedule)
                assert np.array_equal(_fed(name, recipe, world_size, done, phase), whole)


def test_the_data_section_as_words_and_as_json():
    phase = '{"at": 0, "train_batch_tokens": 128, "seq_len": 32}'
    recipe = with_changes(_recipe(), ["data.loader=coprime", f"data.batch_schedule=[{phase}]"])
    assert recipe.data.loader == "coprime"
    assert recipe.data.batch_schedule == (BatchPhase(at=0.0, train_batch_tokens=128, seq_len=32),)
    assert from_json(to_json(recipe), "recipe") == recipe
    hashes = {recipe_hash(r) for r in (recipe, _recipe(), _recipe(loader="coprime"))}
    assert len(hashes) == 3
    with pytest.raises(ValueError, match=r"data.loader: expected .*'packed'.* found 'shuffle'"):
        with_changes(_recipe(), ["data.loader=shuffle"])
