"""Loaders: every row once an epoch, documents whole, and a place that any schedule leaves exact."""

from __future__ import annotations

import math
import tracemalloc
from typing import get_args
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.arch.noise import random_bits, uniform
from core.arch.spec import BOS
from core.data import loaders
from core.data.batches import Batches, BatchPhase, Data, batch, batch_at
from core.data.loaders import Loader, Packed, coprime, order_of, shuffled
from core.data.shards import TokenStream

LOADERS: tuple[Loader, ...] = get_args(Loader)
PERMUTED: tuple[Loader, ...] = ("sequential", "shuffled", "coprime")
DISTINCT = TokenStream(np.split(np.arange(20_000, dtype=np.uint16), [3000, 3001, 9000]))
seeds = st.integers(0, 2**40)


def of_documents(lengths: list[int], head: int = 0) -> TokenStream:
    """Documents of so many tokens, BOS and all, behind the end of another, in uneven shards."""
    tokens = np.full(head + sum(lengths), 7, np.uint16)
    tokens[head + np.cumsum([0, *lengths[:-1]])] = BOS
    return TokenStream(np.array_split(tokens, 3))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PERMUTED), st.integers(1, 700), st.integers(1, 9), seeds, st.integers(0, 99))
def test_every_row_once_an_epoch(
    loader: Loader, rows: int, seq_len: int, seed: int, epoch: int
) -> None:
    stream = TokenStream([np.zeros(rows * seq_len + 1 + seed % seq_len, np.uint16)])
    starts = order_of(loader, stream, seq_len, seed).starts(epoch * rows, rows)
    assert starts.dtype == np.int64
    assert np.array_equal(np.sort(starts), np.arange(rows) * seq_len)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LOADERS), st.integers(0, 900), st.integers(1, 300), seeds)
def test_any_part_of_the_order_is_a_part_of_the_whole(
    loader: Loader, first: int, count: int, seed: int
) -> None:
    stream = of_documents([5, 90, 3, 1, 1, 40, 12] * 20)
    whole = order_of(loader, stream, 16, seed).starts(0, 1200)
    again = order_of(loader, stream, 16, seed)
    for at, held in ((first, count), (0, 1), (first, count)):
        assert np.array_equal(again.starts(at, held), whole[at : at + held])


@pytest.mark.parametrize("loader", ["shuffled", "coprime"])
def test_epochs_and_seeds_differ(loader: Loader) -> None:
    stream = TokenStream([np.zeros(1001, np.uint16)])
    orders = [
        tuple(order_of(loader, stream, 10, seed).starts(100 * epoch, 100).tolist())
        for seed in (0, 1, 1337)
        for epoch in range(4)
    ]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("loader", ["sequential", "packed"])
def test_the_others_know_no_seed(loader: Loader) -> None:
    stream = of_documents([30, 7, 100])
    first, second = (order_of(loader, stream, 8, seed).starts(0, 99) for seed in (0, 1))
    assert np.array_equal(first, second)


def test_golden_orders() -> None:
    """A promise to runs that go on elsewhere: these numbers never move."""
    places = np.arange(8)
    found = shuffled(1337, 0, places, 1000).tolist()
    assert found == [314, 679, 426, 451, 736, 107, 652, 796]
    found = coprime(1337, 0, places, 1000).tolist()
    assert found == [785, 368, 951, 534, 117, 700, 283, 866]


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 5000), seeds, st.integers(0, 50))
def test_a_stride_has_no_divisor_with_the_rows(rows: int, seed: int, epoch: int) -> None:
    found = coprime(seed, epoch, np.arange(rows), rows)
    strides = set((np.diff(found) % rows).tolist())
    assert len(strides) == 1 and math.gcd(strides.pop(), rows) == 1


def test_starts_and_strides_are_both_drawn() -> None:
    found = np.array([coprime(3, epoch, np.arange(2), 1009) for epoch in range(300)])
    strides = (found[:, 1] - found[:, 0]) % 1009
    assert len(set(found[:, 0].tolist())) > 200 and len(set(strides.tolist())) > 200


@pytest.mark.parametrize("rows", [999, 4096, 100_003])
def test_shuffled_rows_are_strangers(rows: int) -> None:
    """Chi-squared of where neighbours go: 63 degrees of freedom, 120 is 1 in 20,000."""
    found = shuffled(5, 2, np.arange(rows), rows)
    for lag in (1, 2, 64):
        pairs, *_ = np.histogram2d(found[lag:], found[:-lag], 8, [[0, rows], [0, rows]])
        expected = (rows - lag) / 64
        assert float(((pairs - expected) ** 2 / expected).sum()) < 120, lag


def test_each_row_comes_anywhere() -> None:
    """Over epochs: 10 rows, 10 places; 81 degrees of freedom."""
    seen = np.zeros((10, 10))
    for epoch in range(2000):
        seen[np.arange(10), shuffled(1, epoch, np.arange(10), 10)] += 1
    assert float(((seen - 200) ** 2 / 200).sum()) < 150


@pytest.mark.parametrize("permute", [shuffled, coprime])
@pytest.mark.parametrize("rows", [2**31 + 11, 2**40, 10**12 + 39])
def test_rows_beyond_32_bits(permute: loaders.Permute, rows: int) -> None:
    """No table of them is made, and no product of theirs overflows."""
    places = np.concatenate([np.arange(500), np.arange(rows - 500, rows)])
    found = permute(1337, 3, places, rows)
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < rows
    assert found.max() > rows // 2


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def ends_of(lengths: list[int], head: int) -> list[tuple[int, int]]:
    """First and last token of each document."""
    last = head + np.cumsum(lengths) - 1
    return [(int(b) - n + 1, int(b)) for n, b in zip(lengths, last, strict=True)]


@settings(max_examples=400, deadline=None)
@given(lengths, st.integers(0, 30), st.integers(1, 24), st.integers(1, 50))
def test_packed_rows(lengths: list[int], head: int, seq_len: int, block: int) -> None:
    stream = of_documents([*lengths, seq_len + 1], head)
    documents = ends_of([*lengths, seq_len + 1], head)
    with patch.object(loaders, "BLOCK_TOKENS", block):
        starts = list(loaders.packed_starts(stream, seq_len))
    rows = [(p, p + seq_len) for p in starts]  # first token, last target
    assert starts[0] == 0 and rows[-1][1] == len(stream) - 1
    assert starts == sorted(set(starts)) and len(starts) <= 2 * len(stream) / seq_len + 1
    targets = {t for p, q in rows for t in range(p + 1, q + 1)}
    assert targets == set(range(1, len(stream))), "nothing is lost"
    for first, last in documents:
        if last - first < seq_len:
            assert any(p <= first and last <= q for p, q in rows), "a short document is whole"
    held = [(0, head - 1)] * bool(head) + documents
    for p, _ in rows[:-1]:
        (first, last), *_ = [(a, b) for a, b in held if a <= p <= b]
        assert p == first or last - first >= seq_len or first == 0 < head, "begins with a document"


def test_packed_by_hand() -> None:
    """Documents at 0, 6, 8 and 31 of 40 tokens, rows of 10 and a target."""
    order = Packed(of_documents([6, 2, 23, 9]), 10)
    # 8 is cut at 10; 18 and 28 go on with it; 31 is cut at 38, but its row would end at 41
    assert order.starts(0, 7).tolist() == [0, 8, 18, 28, 29, 0, 8]
    assert order.starts(4, 3).tolist() == [29, 0, 8]
    ends_with_the_row = Packed(of_documents([4, 6, 25]), 10)
    assert ends_with_the_row.starts(0, 4).tolist() == [0, 10, 20, 24]


def test_what_is_trained_twice() -> None:
    """A quarter, where documents of any length are 1000 tokens on average."""
    tokens = np.where(uniform(2, 0, (1_000_000,)) < 0.001, BOS, 7).astype(np.uint16)
    rows = list(loaders.packed_starts(TokenStream([tokens]), 1024))
    assert 1.2 < len(rows) * 1024 / len(tokens) < 1.3


def test_data_without_documents_follows_one_another() -> None:
    stream = TokenStream([np.full(45, 7, np.uint16)])
    assert Packed(stream, 10).starts(0, 6).tolist() == [0, 10, 20, 30, 34, 0]


@pytest.mark.parametrize("loader", LOADERS)
def test_memory_and_time_do_not_grow_with_the_data(loader: Loader) -> None:
    """Ten million tokens: 8 bytes a row where rows are found, and nothing elsewhere."""
    tokens = np.full(10_000_000, 7, np.uint16)
    tokens[(uniform(1, 0, (20_000,)) * len(tokens)).astype(np.int64)] = BOS
    stream, blocks = TokenStream([tokens]), 20 * loaders.BLOCK_TOKENS
    tracemalloc.start()
    order = order_of(loader, stream, 1024, 1337)
    order.starts(10**9, 512)
    order.starts(5, 512)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500_000
    assert peak < (blocks if loader == "packed" else 500_000)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 13])
def test_the_ranks_together_take_the_one_rank_batch(loader: Loader, world_size: int) -> None:
    sizes = {"seq_len": 64, "train_batch_tokens": 640, "vocab_size": 1024}
    tokens = (random_bits(1, 0, 10_000) % np.uint64(90)).astype(np.uint16)
    stream = TokenStream(np.split(tokens, [3000, 3001, 9000]))
    for step in (0, 15, 40):
        whole = batch(stream, step, loader=loader, seed=7, **sizes)
        parts = [
            batch(stream, step, loader=loader, seed=7, rank=r, world_size=world_size, **sizes)
            for r in range(world_size)
        ]
        for mine, all_rows in zip(zip(*parts, strict=True), whole, strict=True):
            assert np.array_equal(np.concatenate(mine), all_rows)
        assert np.array_equal(whole[0][:, 1:], whole[1][:, :-1])


plans = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 4, 16])), max_size=30
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LOADERS), plans)
def test_a_switch_neither_repeats_nor_leaves_out(
    loader: Loader, plan: list[tuple[int, int]]
) -> None:
    """Steps of any sizes in rows of any length: the tokens of the order, one after another."""
    order, done = order_of(loader, DISTINCT, 16, 1), 0
    taken: list[NDArray[np.int32]] = []
    for rows, parts in plan:
        sizes = {"train_batch_tokens": 16 * rows, "seq_len": 16 // parts, "vocab_size": 20_000}
        x, y = batch_at(order, done, **sizes)
        assert x.shape == y.shape == (rows * parts, 16 // parts)
        assert np.array_equal(y[:, :-1], x[:, 1:]) and np.array_equal(y[:, -1], x[:, -1] + 1)
        taken.append(x.ravel())
        done += 16 * rows
    expected = [np.arange(16) + start for start in order.starts(0, done // 16)]
    assert np.array_equal(np.concatenate([[], *taken]), np.concatenate([[], *expected]))


SCHEDULE = (
    BatchPhase(at=0.0, train_batch_tokens=64, seq_len=16),
    BatchPhase(at=0.3, train_batch_tokens=128, seq_len=32),
    BatchPhase(at=0.7, train_batch_tokens=192, seq_len=64),
)


def scheduled(**changes: object) -> Data:
    return Data(**{"train_batch_tokens": 192, "batch_schedule": SCHEDULE, **changes})


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("micro_batch", [0, 1, 2])
def test_a_run_of_several_phases_reads_ahead_what_it_would_read(
    loader: Loader, micro_batch: int
) -> None:
    """Wherever the phases switch, in or out of turn, twice or from the middle as after a stop."""
    data = scheduled(loader=loader, micro_batch=micro_batch)
    sizes = {"seq_len": 64, "vocab_size": 20_000, "seed": 3, "rank": 1, "world_size": 2}
    batches = Batches(DISTINCT, data, **sizes)
    order, done = order_of(loader, DISTINCT, 64, 3), 0
    for phase in (0, 0, 0, 1, 1, 2, 1, 0, 0, 2, 2):
        size = data.phases(64)[phase]
        whole = {"train_batch_tokens": size.train_batch_tokens, "seq_len": size.seq_len}
        x, y = batch_at(order, done, **whole, vocab_size=20_000, rank=1, world_size=2)
        for reading in (batches, batches, Batches(DISTINCT, data, **sizes)):
            parts = reading.at(done, phase)
            for mine, rows in zip(zip(*parts, strict=True), (x, y), strict=True):
                assert np.array_equal(np.concatenate(mine), rows)
            most = micro_batch * 64 or 192  # tokens a forward, in whatever rows
            assert [part.size for part, _ in parts[:-1]] == [most] * (math.ceil(x.size / most) - 1)
        done += size.train_batch_tokens


def test_which_phase_is_on() -> None:
    data = scheduled()
    assert [data.phase(at) for at in (0.0, 0.29, 0.3, 0.69, 0.7, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert Data().phase(0.5) == 0
    assert data.phases(64) == SCHEDULE
    (whole,) = Data(train_batch_tokens=640).phases(64)
    assert (whole.at, whole.train_batch_tokens, whole.seq_len) == (0.0, 640, 64)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"at": 0.0}, r"begins at \[0.0, 0.0\], expected 0 first, then rising"),
        ({"at": 1.0}, r"begins at \[0.0, 1.0\].* all below 1"),
        ({"train_batch_tokens": 256}, "256 tokens.* no more tokens than train_batch_tokens 192"),
        ({"seq_len": 0}, "rows of 0; expected rows of 1"),
        ({"seq_len": 129}, "128 tokens in rows of 129"),
    ],
)
def test_a_schedule_that_does_not_add_up(second: dict[str, float], message: str) -> None:
    fields = {"at": 0.3, "train_batch_tokens": 128, "seq_len": 32, **second}
    with pytest.raises(ValueError, match=message):
        scheduled(batch_schedule=(SCHEDULE[0], BatchPhase(**fields)))
    with pytest.raises(ValueError, match=r"begins at \[0.3\]"):
        scheduled(batch_schedule=SCHEDULE[1:2])


@pytest.mark.parametrize(
    ("tokens", "seq_len", "message"),
    [
        (96, 32, "96 must be a multiple of arch.seq_len 64; try 64"),
        (128, 24, "seq_len 24 must divide arch.seq_len 64.* try 16"),
        (192, 100, "seq_len 100 must divide arch.seq_len 64.* try 64"),
    ],
)
def test_phases_take_whole_rows(tokens: int, seq_len: int, message: str) -> None:
    phase = BatchPhase(at=0.0, train_batch_tokens=tokens, seq_len=seq_len)
    data = scheduled(batch_schedule=(phase,))
    with pytest.raises(ValueError, match=message):
        data.phases(64)
    with pytest.raises(ValueError, match=message):
        Batches(DISTINCT, data, seq_len=64, vocab_size=20_000, seed=0)


@pytest.mark.parametrize("loader", LOADERS)
def test_too_little_data(loader: Loader) -> None:
    assert order_of(loader, DISTINCT, 19_999, 0).starts(0, 2).tolist() == [0, 0]
    with pytest.raises(ValueError, match="too little data: 20000 tokens.* needs 20001"):
        order_of(loader, DISTINCT, 20_000, 0)
