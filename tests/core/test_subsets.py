"""Subsets are fixed and honest: which targets, how far off they may be, and models changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.arch.params import Weights, check_weights, init_params
from core.arch.spec import ModelSpec
from core.data.decoding import check_decoding
from core.data.shards import TokenStream
from core.score.bpb import Tally
from core.score.interval import BLOCKS, bpb_interval, t_quantile
from core.score.modified import modify
from core.score.scoring import Validation, open_validation, read_tokens, score, subset_fields
from core.score.subsets import SUBSETS, Subset, choose_subset, windows_of
from core.score.windows import Rows, Window, chunked
from tests.conftest import Text

FULL_TOKENS = 62_021_847  # about the task's split
SPREAD = Subset(name="spread-test", targets=1024, spread=True)


def targets_of(windows: Sequence[Window]) -> list[int]:
    return [t for w in windows for t in range(w.start + 1, w.start + w.count + 1)]


@pytest.mark.parametrize("seq_len", [1000, 1024, 2048])
@pytest.mark.parametrize("name", SUBSETS)
def test_named_subsets_take_every_target_at_most_once(name: str, seq_len: int) -> None:
    subset = next(s for s in SUBSETS.values() if s.name == name)
    whole = chunked(FULL_TOKENS, seq_len)
    windows = list(windows_of(subset, whole))
    targets = np.array(targets_of(windows))
    assert windows == list(windows_of(subset, whole))
    assert (np.diff(targets) > 0).all() and targets[0] >= 1 and targets[-1] < FULL_TOKENS
    if subset.spread:
        assert subset.targets - seq_len < len(targets) <= subset.targets
        assert set(windows) <= set(whole)
    else:
        assert targets.tolist() == list(range(1, subset.targets + 1))


def test_the_spread_is_the_one_that_was_published() -> None:
    """A subset that moves gives numbers that cannot be compared."""
    windows = windows_of(SUBSETS["spread-1m"], chunked(FULL_TOKENS, 1024))
    assert len(windows) == 1024 and sum(w.count for w in windows) == 1 << 20
    starts = [windows[i].start // 1024 for i in (0, 1, 2, 511, 1023)]
    assert starts == [29, 88, 147, 30254, 60539]
    gaps = np.diff([w.start for w in windows]) // 1024
    assert set(gaps.tolist()) == {59, 60}
    small = windows_of(SPREAD, chunked(9393, 64))
    assert [w.start // 64 for w in small] == [(2 * i + 1) * 147 // 32 for i in range(16)]


def test_a_subset_as_long_as_the_split_is_the_split() -> None:
    million = 1 << 20
    assert choose_subset("full", 0, 100, 16) is None
    assert choose_subset("first-1m", 0, million + 1, 64) is None
    assert choose_subset("first-1m", 0, million + 2, 64) == SUBSETS["first-1m"]
    assert choose_subset("spread-1m", 0, million + 1, 64) is None
    assert choose_subset("spread-1m", 0, 2 * million, 1000) == SUBSETS["spread-1m"]
    assert choose_subset("full", 99, 100, 16) is None
    assert choose_subset("full", 98, 100, 16) == Subset(name="first-98", targets=98)
    long = choose_subset("spread-262k", 0, 3 * million, 2 * million)  # a window of 2 M targets
    assert len(windows_of(long, chunked(3 * million, 2 * million))) == 1
    assert choose_subset("spread-262k", 0, 3 * million, 4 * million) is None


def test_a_subset_tally_counts_its_own_targets() -> None:
    windows = [Window(0, 4), Window(8, 2)]

    def tally(*firsts: int) -> Tally:
        added = Tally(12, has_raw=False, chosen=windows)
        for first, window in zip(firsts, windows, strict=False):
            added.add(first, np.ones(window.count, np.float32), np.ones(window.count, int), None)
        return added

    assert tally(1, 9).result().tokens == 6
    assert tally(1, 9).window_sums == [(4.0, 4), (2.0, 2)]
    with pytest.raises(AssertionError, match="target 9 was scored 0 times, expected 1"):
        tally(1).result()
    with pytest.raises(AssertionError, match="target 5 was scored 1 times, expected 0"):
        tally(1, 5).result()


# The interval.


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706), (4, 2.776), (5, 2.571), (6, 2.447), (10, 2.228), (31, 2.040), (1023, 1.962)],
)
def test_t_quantiles(freedom: int, expected: float) -> None:
    """The printed tables, which have three decimals."""
    assert t_quantile(freedom) == pytest.approx(expected, abs=0.001)


def test_the_interval_is_near_the_jackknife() -> None:
    """Another estimator of the same error, written another way."""
    dice = np.random.default_rng(1)
    counts = dice.integers(50, 200, 60)
    nats = counts * dice.normal(1.0, 0.2, 60)
    sums = list(zip(nats.tolist(), counts.tolist(), strict=True))
    low, high = bpb_interval(sums, 0.25, spread=True) or (0.0, 0.0)
    bpb = nats.sum() / counts.sum() / math.log(2)
    without = (nats.sum() - nats) / (counts.sum() - counts) / math.log(2)
    error = math.sqrt(0.75 * 59 / 60 * ((without - without.mean()) ** 2).sum())
    assert (low + high) / 2 == pytest.approx(bpb, rel=1e-12)
    assert (high - low) / 2 == pytest.approx(t_quantile(59) * error, rel=0.05)


def test_the_interval_of_two_windows_by_hand() -> None:
    """R = 1.1, residuals -1 and +1: error sqrt(2 / 1 * 2) / 20 = 0.1, t(1) = 12.7062."""
    low, high = bpb_interval([(10.0, 10), (12.0, 10)], 0.0, spread=True) or (0.0, 0.0)
    assert low * math.log(2) == pytest.approx(1.1 - 1.27062, rel=1e-12)
    assert high * math.log(2) == pytest.approx(1.1 + 1.27062, rel=1e-12)


def test_one_window_has_no_interval() -> None:
    assert bpb_interval([(5.0, 4)], 0.5, spread=True) is None
    assert bpb_interval([], 0.5, spread=False) is None
    assert bpb_interval([(5.0, 0), (6.0, 0)], 0.5, spread=True) is None


def population(seed: int, windows: int) -> list[tuple[float, int]]:
    """(nats, bytes) of windows of 8 parts, over documents of 2 to 18 parts: each document has its
    own difficulty and its own bytes a part, so that neighbouring windows are alike. The task's
    documents, too, are about a window of 1,024 long.
    """
    dice = np.random.default_rng(seed)
    parts = 8 * windows
    document = np.repeat(np.arange(parts), dice.integers(2, 19, parts))[:parts]
    hard, wide = dice.normal(1.0, 0.3, parts), dice.uniform(200.0, 600.0, parts)
    counts = dice.poisson(wide[document]).reshape(windows, 8).sum(1)
    nats = (dice.gamma(25.0, 10.0, parts) * hard[document]).reshape(windows, 8).sum(1)
    return list(zip(nats.tolist(), counts.tolist(), strict=True))


def coverage(spread: bool, taken: int, of: int) -> float:
    """How many of 400 made-up splits the interval holds, sampled by our own rule."""
    held, trials = 0, 400
    part = Subset(name="test", targets=8 * taken, spread=spread)
    chosen = [w.start // 8 for w in windows_of(part, chunked(8 * of + 1, 8))]
    assert len(chosen) == taken
    for seed in range(trials):
        whole = population(seed, of)
        low, high = bpb_interval([whole[i] for i in chosen], taken / of, spread) or (0.0, 0.0)
        nats, counts = np.array(whole).sum(0)
        held += bool(low <= nats / counts / math.log(2) <= high)
    return held / trials


@pytest.mark.parametrize(
    ("spread", "taken", "of"), [(True, 100, 2000), (True, 20, 400), (False, 128, 1000)]
)
def test_the_interval_holds_as_often_as_it_says(spread: bool, taken: int, of: int) -> None:
    """95 % promised, and of 400 trials between 90 and 99 %."""
    assert 0.90 <= coverage(spread, taken, of) <= 0.99


def test_a_dense_spread_errs_on_the_wide_side() -> None:
    """Windows 3 apart see the same documents: they know more than as many drawn at random."""
    assert coverage(True, 600, 2000) >= 0.95


def test_a_stretch_is_cut_into_clusters_of_neighbours() -> None:
    """Windows that go up and down by turns: neighbours cancel, and the interval must see that."""
    sums = [(10.0 + 5.0 * (-1) ** i, 10) for i in range(4 * BLOCKS)]
    low, high = bpb_interval(sums, 0.0, spread=False) or (0.0, 1.0)
    assert high - low < 1e-12
    low, high = bpb_interval(sums, 0.0, spread=True) or (0.0, 0.0)
    assert high - low > 0.1


def pair_nats(x: Rows, y: Rows) -> NDArray[np.float32]:
    return ((7 * x + 3 * y) % 11 / 4).astype(np.float32)


def validation_of(text: Text, subset: Subset | None) -> Validation:
    return replace(open_validation(text.data, text.tokenizer.vocab_size), subset=subset)


def test_intervals_on_real_text(text: Text) -> None:
    """Twelve subsets of one split: at 95 % each, two misses are no surprise and four are."""
    full = score(pair_nats, validation_of(text, None), 16, 8).val_bpb
    held = []
    for spread in (True, False):
        for targets in (512, 777, 1024, 2048, 3000, 6000):
            part = Subset(name="test", targets=targets, spread=spread)
            scored = score(pair_nats, validation_of(text, part), 16, 8)
            low, high = scored.interval or (0.0, 0.0)
            assert low < scored.val_bpb < high
            held.append(low <= full <= high)
    assert sum(held) >= 9, held


@pytest.mark.parametrize("seq_len", [16, 64, 100])
def test_a_spread_scores_its_windows_as_the_full_split_does(text: Text, seq_len: int) -> None:
    validation = validation_of(text, SPREAD)
    scored, label = score(pair_nats, validation, seq_len, 3), None
    tokens = validation.stream.slice(0, len(validation.stream)).astype(np.int32)
    targets = np.array(targets_of(validation.windows(seq_len)))
    nats = pair_nats(tokens[targets - 1], tokens[targets]).astype(np.float64).sum()
    counts = validation.table.count(tokens[targets - 1], tokens[targets]).sum()
    assert scored.nats == pytest.approx(nats, rel=1e-12)
    assert (scored.tokens, scored.bytes) == (len(targets), counts)
    label = subset_fields(scored, validation)
    assert label is not None and label["targets"] == 1024 // seq_len * seq_len
    assert label["name"] == "spread-test" and "first_targets" not in label


def test_the_bytes_of_a_spread_are_checked(text: Text) -> None:
    """Windows cut inside characters pass; a table that is wrong for what they hold does not."""
    validation = validation_of(text, SPREAD)
    for seq_len in (1, 7, 64):
        read = read_tokens(validation, text.tokenizer, seq_len)
        assert 1024 - 1024 // seq_len <= len(read) <= 1024 + 1024 // seq_len
        check_decoding(validation.table, text.tokenizer, read)
    wrong = replace(validation.table, base_bytes=validation.table.base_bytes + 1)
    with pytest.raises(ValueError, match="bytes cannot be counted"):
        check_decoding(wrong, text.tokenizer, read_tokens(validation, text.tokenizer, 64))
    foreign = replace(validation, stream=TokenStream([np.full(9393, 60_000, np.uint16)]))
    with pytest.raises(ValueError, match="do not belong together"):
        read_tokens(foreign, text.tokenizer, 64)


def test_a_window_of_byte_pieces_alone_can_be_cut(text: Text) -> None:
    ids, _ = text.tokenizer.encode("naïve 日本語のテキスト and some more")
    stream = TokenStream([np.concatenate([[text.tokenizer.bos_id], np.tile(ids, 60)]).astype("u2")])
    validation = replace(validation_of(text, SPREAD), stream=stream, sidecar=None)
    for seq_len in (2, 3, 5):
        read = read_tokens(validation, text.tokenizer, seq_len)
        check_decoding(validation.table, text.tokenizer, read)


def test_a_spread_needs_a_window_length(text: Text) -> None:
    with pytest.raises(ValueError, match="spread-1m needs a seq_len of at least 1, found 0"):
        open_validation(text.data, text.tokenizer.vocab_size, 0, "spread-1m")


# A trained model with something changed.

SPEC = ModelSpec(
    vocab_size=64, num_layers=4, model_dim=32, num_heads=4, num_kv_heads=2, mlp_dim=64, seq_len=16
)


def trained(spec: ModelSpec = SPEC) -> Weights:
    return {name: array + np.float32(0.25) for name, array in init_params(spec, 1).items()}


def test_a_change_of_the_spec_keeps_the_weights() -> None:
    changes = ["arch.rope_dims=4", "arch.logit_softcap=0", "arch.norm_eps=1e-5"]
    model, weights = modify(SPEC, trained(), changes), trained()
    assert model.spec == replace(SPEC, rope_dims=4, logit_softcap=0.0, norm_eps=1e-5)
    assert model.changes == ("arch.rope_dims=4", "arch.logit_softcap=0.0", "arch.norm_eps=1e-05")
    assert model.dropped == () and model.weights.keys() == weights.keys()
    assert all(np.array_equal(model.weights[name], weights[name]) for name in weights)
    assert modify(SPEC, weights, ()).changes == ()


def test_what_the_changed_model_has_not_is_dropped_and_said() -> None:
    model = modify(SPEC, trained(), ["arch.skips=none"])
    assert model.dropped == ("skip_weights",) and model.changes == ("arch.skips=none",)
    check_weights(model.weights, model.spec, "test")
    untied = replace(SPEC, tie_embeddings=False)
    assert modify(untied, trained(untied), ["arch.tie_embeddings=1"]).dropped == ("lm_head.weight",)
    fewer = modify(SPEC, trained(), ["arch.num_layers=3", "arch.skips=none"])
    assert len(fewer.dropped) == 11


def test_gains_are_set_as_weights() -> None:
    before = trained()
    model = modify(SPEC, before, ["weights.q_gain=1.0", "weights.blocks.2.attn_scale=0"])
    for name, array in model.weights.items():
        if name.endswith(".q_gain"):
            assert (array == 1.0).all() and array.dtype == np.float32
        elif name == "blocks.2.attn_scale":
            assert not array.any()
        else:
            assert array is before[name]
    assert model.changes == ("weights.q_gain=1.0", "weights.blocks.2.attn_scale=0.0")
    assert all((before[name] == 1.75).all() for name in before if name.endswith("q_gain"))


REFUSED = {  # changes: part of the sentence
    "arch.qk_gain_init=1.0": "is a start value, which a trained model has left behind",
    "arch.tied_embed_init_std=1": "as weights.q_gain=1.0",
    "arch.rope_dims=8": "this model computes the same with rope_dims=none",
    "arch.rope_dims=none": "changes nothing: it is none already",
    "arch.logit_softcap=30": "it is 30.0 already",
    "arch.leaky_slope=0.1": "computes the same with leaky_slope=0.5",
    "arch.skips=none arch.skips=unet": "arch.skips=none changes nothing",
    "arch.logit_softcap=0 arch.rope_base=10000": "arch.rope_base=10000 changes nothing",
    "arch.rope_base=1 arch.rope_dims=0": "arch.rope_base=1 changes nothing",
    "arch.mlp_dim=128": "needs blocks.0.mlp.fc.weight of shape (128, 32), the artifact's is (64, 3",
    "arch.num_layers=5": "needs blocks.4.resid_mix of shape (2, 32), the artifact holds none",
    "arch.tie_embeddings=false": "needs lm_head.weight of shape (64, 32), the artifact holds none",
    "arch.rope_dim=0": "did you mean 'rope_dims'",
    "arch.rope_dims=3": "rope_dims 3 must be even",
    "arch.skips=off": "expected 'none' or 'unet', found 'off'",
    "weights.q_gian=1": "did you mean 'q_gain'",
    "weights.q_gain=1.75": "every entry is 1.75 already",
    "weights.q_gain=nan": "expected a finite number, found 'nan'",
    "weights.q_gain": "expected arch.FIELD=value or weights.NAME=value",
    "quant.codec=lzma": "expected arch.FIELD=value or weights.NAME=value",
    "rope_dims=0": "expected arch.FIELD=value or weights.NAME=value",
}


@pytest.mark.parametrize("changes", REFUSED)
def test_a_change_that_cannot_be_scored_is_refused(changes: str) -> None:
    with pytest.raises(ValueError) as refusal:
        modify(SPEC, trained(), changes.split())
    assert REFUSED[changes] in str(refusal.value)


def test_a_change_that_counts_beside_another_passes() -> None:
    """leaky_slope means nothing to relu2 and something to leaky_relu2."""
    both = modify(SPEC, trained(), ["arch.activation=leaky_relu2", "arch.leaky_slope=0.1"])
    assert both.spec.leaky_slope == 0.1
    halves = modify(SPEC, trained(), ["arch.seq_len=32", "arch.rope_base=500"])
    assert (halves.spec.seq_len, halves.spec.rope_base) == (32, 500.0)
