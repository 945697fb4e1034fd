"""Batches: a pure function of the step, whatever the ranks, shards and micro-batches."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from core.arch.noise import random_bits
from core.data.batches import Data, batch, micro_batches
from core.data.shards import TokenStream

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
