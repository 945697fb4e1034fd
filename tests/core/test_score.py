"""Scoring: bits per byte, every target once, tails and subsets, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.arch.noise import uniform
from core.data.batches import Data
from core.data.export import tokenize
from core.data.shards import TokenStream
from core.data.token_bytes import byte_table
from core.data.tokenizer import train_tokenizer
from core.score.bpb import Scored, Tally, bits_per_byte
from core.score.resume import Task, data_hash, load_state, save_state, state_name
from core.score.scoring import (
    Score,
    Validation,
    open_tally,
    open_validation,
    score,
    subset_fields,
)
from core.score.windows import Rows, Window, batches, chunked, fill
from tests.conftest import Text

SEQ_LEN = 16


def test_bits_per_byte() -> None:
    assert bits_per_byte(math.log(2.0) * 12, 6) == pytest.approx(2.0)
    scored = Scored(nats=10.0, tokens=5, bytes=20, bytes_raw=None)
    assert (scored.val_loss, scored.val_bpb_raw) == (2.0, None)
    with pytest.raises(ValueError, match="0 bytes scored"):
        bits_per_byte(1.0, 0)


@pytest.mark.parametrize("num_tokens", [2, 3, 16, 17, 18, 33, 160, 161, 175])
def test_windows_hold_every_target_once(num_tokens: int) -> None:
    windows = chunked(num_tokens, SEQ_LEN)
    targets = [t for w in windows for t in range(w.start + 1, w.start + w.count + 1)]
    assert targets == list(range(1, num_tokens))
    assert all(w.count == SEQ_LEN for w in windows[:-1])
    assert [w for group in batches(windows, 3) for w in group] == windows


def test_one_token_has_no_target() -> None:
    with pytest.raises(ValueError, match="1 tokens hold no target"):
        chunked(1, SEQ_LEN)


def test_rows_are_padded_to_one_shape() -> None:
    stream = TokenStream([np.arange(20, dtype=np.uint16)])
    x, y = fill(stream, [Window(0, 8), Window(16, 3)], 4, 8)
    assert x.shape == y.shape == (4, 8) and x.dtype == np.int32
    assert x[1].tolist() == [16, 17, 18, 0, 0, 0, 0, 0] and y[1].tolist()[:3] == [17, 18, 19]
    assert not x[2:].any()


def tally_of(*spans: tuple[int, int]) -> Tally:
    tally = Tally(10, has_raw=False)
    for first, count in spans:
        tally.add(first, np.ones(count, np.float32), np.ones(count, np.int64), None)
    return tally


def test_a_target_scored_twice_or_never_is_an_error() -> None:
    assert tally_of((1, 4), (5, 5)).result().tokens == 9
    for spans, message in (
        (((1, 9), (4, 1)), "target 4 was scored 2 times"),
        (((1, 8),), "target 9 was scored 0 times"),
        (((0, 10),), "target 0 was scored 1 times"),
    ):
        with pytest.raises(AssertionError, match=message):
            tally_of(*spans).result()


def test_a_loss_that_is_not_finite_is_named() -> None:
    nats = np.array([1, np.nan, 1], np.float32)
    with pytest.raises(ValueError, match="loss of target 5 is not finite"):
        Tally(10, has_raw=False).add(4, nats, np.ones(3, np.int64), None)


def position_nats(x: Rows, y: Rows) -> NDArray[np.float32]:
    """Nats that only the pair (input, target) decides."""
    return ((7 * x + 3 * y) % 11 / 4).astype(np.float32)


def validation_of(text: Text, limit_tokens: int = 0) -> Validation:
    return open_validation(text.data, text.tokenizer.vocab_size, limit_tokens)


@pytest.mark.parametrize("seq_len", [7, 64, 1000, 100_000])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_score_of_pairs_is_the_same_for_any_windows(
    text: Text, seq_len: int, batch: int
) -> None:
    validation = validation_of(text)
    scored = score(position_nats, validation, seq_len, batch)
    tokens = validation.stream.slice(0, len(validation.stream)).astype(np.int32)
    expected = position_nats(tokens[:-1], tokens[1:]).astype(np.float64).sum()
    assert scored.tokens == len(tokens) - 1
    assert scored.nats == pytest.approx(expected, rel=1e-12)


def test_bytes_are_the_documents_own(text: Text) -> None:
    scored = score(position_nats, validation_of(text), 64, 4)
    held_out = text.documents[:6]
    decoded = [text.tokenizer.decode(text.tokenizer.encode(d)[0]) for d in held_out]
    assert scored.bytes == sum(len(d.encode()) for d in decoded)
    assert scored.bytes_raw == sum(len(d.encode()) for d in held_out)
    assert scored.bytes_raw > scored.bytes  # newlines and runs of spaces are normalised away
    assert scored.val_bpb_raw is not None and scored.val_bpb_raw < scored.val_bpb


def test_a_uniform_model_scores_log_v(text: Text) -> None:
    vocab = text.tokenizer.vocab_size

    def flat(x: Rows, y: Rows) -> NDArray[np.float32]:
        return np.full(x.shape, math.log(vocab), np.float32)

    scored = score(flat, validation_of(text), 64, 4)
    assert scored.val_loss == pytest.approx(math.log(vocab), rel=1e-7)
    assert scored.val_bpb == pytest.approx(
        math.log2(vocab) * scored.tokens / scored.bytes, rel=1e-7
    )


def test_a_subset_is_labelled_and_is_the_first_targets(text: Text) -> None:
    validation = validation_of(text, limit_tokens=100)
    scored = score(position_nats, validation, 64, 4)
    tokens = validation.stream.slice(0, 101).astype(np.int32)
    first = position_nats(tokens[:-1], tokens[1:]).astype(np.float64).sum()
    assert scored.tokens == 100 and scored.nats == pytest.approx(first, rel=1e-12)
    label = subset_fields(scored, validation)
    assert label is not None and scored.interval is not None
    assert (label["name"], label["targets"]) == ("first-100", 100)
    assert label["of_targets"] == len(validation.stream) - 1
    assert (label["val_bpb_low"], label["val_bpb_high"]) == scored.interval
    whole = validation_of(text, limit_tokens=10**9)
    assert whole.subset is None
    assert subset_fields(score(position_nats, whole, 64, 4), whole) is None


def test_nothing_is_lost_on_large_losses() -> None:
    """Sums are float64: float32 would lose these."""
    table_like: Any = uniform(1, 2, (200_000,)).astype(np.float32) + 5
    tally = Tally(200_001, has_raw=False)
    for first in range(0, 200_000, 1000):
        part = table_like[first : first + 1000]
        tally.add(first + 1, part, np.ones(1000, np.int64), None)
    exact = math.fsum(table_like.astype(np.float64))
    assert tally.result().nats == pytest.approx(exact, rel=1e-13)


def test_the_wrong_tokenizer_is_refused(text: Text, tmp_path: Any) -> None:
    other = tmp_path / "other.model"
    vocab = text.tokenizer.vocab_size
    train_tokenizer([d[::-1] for d in text.documents], vocab, other)
    with pytest.raises(ValueError, match="wrong tokenizer for the shards"):
        open_validation(replace(text.data, tokenizer=str(other)), vocab)
    with pytest.raises(ValueError, match=f"has {vocab} pieces, the model a vocab_size of 1024"):
        open_validation(text.data, 1024)


def test_shards_without_a_manifest_are_still_held_to_the_tokenizer(
    text: Text, tmp_path: Any
) -> None:
    """Tokens beyond the vocabulary, and bytes that the decoding contradicts."""
    small = train_tokenizer(text.documents, 360, tmp_path / "s.model")
    tokenize(text.documents, text.tokenizer, tmp_path / "shards", val_docs=6)
    (tmp_path / "shards" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="do not belong together"):
        open_validation(
            Data(path=str(tmp_path / "shards"), tokenizer=str(tmp_path / "s.model")),
            small.vocab_size,
        )


def test_a_sidecar_of_another_length_is_refused(text: Text, tmp_path: Any) -> None:
    tokenize(text.documents, text.tokenizer, tmp_path / "a", val_docs=6)
    tokenize(text.documents, text.tokenizer, tmp_path / "b", val_docs=5)
    name = "fineweb_val_bytes_000000.bin"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="tokens"):
        open_validation(replace(text.data, path=str(tmp_path / "a")), text.tokenizer.vocab_size)


def test_missing_data_names_the_next_command(tmp_path: Any, text: Text) -> None:
    with pytest.raises(ValueError, match="golf data tokenize"):
        open_validation(replace(text.data, path=str(tmp_path)), text.tokenizer.vocab_size)
    with pytest.raises(ValueError, match="golf tokenizer train"):
        open_validation(replace(text.data, tokenizer=str(tmp_path / "no")), 384)


def test_transformed_text_counts_by_its_sidecar(text: Text) -> None:
    """Where only the sidecar knows the bytes, the headline score uses it."""
    validation = validation_of(text)
    marked = replace(byte_table(text.tokenizer), markers=("\ue000",))
    scored = score(position_nats, replace(validation, table=marked), 64, 4)
    assert scored.bytes == scored.bytes_raw


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="score.val_every_steps -1"):
        Score(val_every_steps=-1)
    with pytest.raises(ValueError, match="first-1m and score.limit_tokens 5 are two subsets"):
        Score(subset="first-1m", limit_tokens=5)
    assert json.dumps(Score().__dict__)


class Stop(Exception):
    """Something ends a scoring."""


TASK: Task = {"artifact": "a" * 64, "subset": "full", "protocol": {"seq_len": 16, "batch": 5}}


def stopped(path: Path, validation: Validation, seq_len: int, batch: int, after: int) -> None:
    """Score, save behind every batch, and break off inside the one after `after` batches."""
    calls = iter(range(10_000))

    def nats_of(x: Rows, y: Rows) -> NDArray[np.float32]:
        if next(calls) == after:
            raise Stop
        return uneven(x, y)

    tally = open_tally(validation, seq_len)
    with pytest.raises(Stop):
        score(nats_of, validation, seq_len, batch, lambda t: save_state(path, TASK, t, 2.5), tally)


def uneven(x: Rows, y: Rows) -> NDArray[np.float32]:
    """Nats whose sum depends on the order of adding."""
    return ((7.1 * x + 3.3 * y) % 11 / 3).astype(np.float32)


@pytest.mark.parametrize("seq_len", [16, 64, 1000])
@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("limit_tokens", [0, 7777])
def test_a_stopped_scoring_ends_in_the_same_bits(
    text: Text, tmp_path: Path, seq_len: int, after: int, limit_tokens: int
) -> None:
    validation, path = validation_of(text, limit_tokens), tmp_path / "state"
    whole = score(uneven, validation, seq_len, 3)
    stopped(path, validation, seq_len, 3, after)
    num_tokens = len(validation.stream)
    tally, seconds = load_state(path, TASK, open_tally(validation, seq_len), num_tokens)
    assert (tally.windows, tally.targets, seconds) == (3 * after, 3 * after * seq_len, 2.5)
    again: list[int] = []
    resumed = score(
        uneven, validation, seq_len, 3, lambda tally: again.append(tally.windows), tally
    )
    assert resumed == whole  # floats and all
    assert again[0] == min(3 * after + 3, len(validation.windows(seq_len)))


def test_a_finished_tally_goes_on_to_its_result(text: Text, tmp_path: Path) -> None:
    validation, path = validation_of(text), tmp_path / "state"
    whole = score(uneven, validation, 64, 7, lambda tally: save_state(path, TASK, tally, 1.0))
    tally, _ = load_state(path, TASK, open_tally(validation, 64), len(validation.stream))
    assert score(uneven, validation, 64, 7, None, tally) == whole


def test_a_state_of_another_scoring_is_refused(text: Text, tmp_path: Path) -> None:
    validation, path = validation_of(text), tmp_path / "state"
    stopped(path, validation, SEQ_LEN, 5, 2)
    num_tokens = len(validation.stream)
    for name, value in (
        ("artifact", "b" * 64),
        ("subset", "first-1m"),
        ("protocol", {"seq_len": 16, "batch": 6}),
        ("precision", "cast"),
    ):
        with pytest.raises(ValueError, match=f"continues another scoring: its {name} is .* here"):
            load_state(path, {**TASK, name: value}, open_tally(validation, SEQ_LEN), num_tokens)
    assert state_name(TASK) != state_name({**TASK, "subset": "first-1m"})
    tally, _ = load_state(path, TASK, open_tally(validation, SEQ_LEN), num_tokens)
    with pytest.raises(ValueError, match="does not end behind a batch of 4 of these"):
        score(uneven, validation, SEQ_LEN, 4, None, tally)


def test_a_damaged_state_is_refused(text: Text, tmp_path: Path) -> None:
    validation, path = validation_of(text), tmp_path / "state"
    stopped(path, validation, SEQ_LEN, 5, 2)
    whole, empty = path.read_bytes(), open_tally(validation, SEQ_LEN)
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="not the state of a scoring|damaged"):
            load_state(path, TASK, empty, len(validation.stream))
    path.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match="damaged, its checksum is another; remove it"):
        load_state(path, TASK, empty, len(validation.stream))
    with pytest.raises(ValueError, match="counters, expected"):
        path.write_bytes(whole)
        load_state(path, TASK, Tally(50, has_raw=True), 50)


STATES: list[tuple[dict[str, Any], str]] = [
    ({"windows": -1}, "windows -1, expected a count"),
    ({"targets": True}, "targets True, expected a count"),
    ({"targets": 5}, "4 targets counted, 5 said"),
    ({"nats": math.inf}, "nats inf, expected a finite sum"),
    ({"nats": 3}, "nats 3, expected a finite sum"),
    ({"bytes_raw": 7}, "original bytes, but there is no sidecar"),
    ({"window_sums": [[1.0, 2]]}, "not the sums of 0 windows"),
    ({"more": 1}, "fields"),
]


@pytest.mark.parametrize(("change", "message"), STATES)
def test_a_state_is_checked_before_it_is_taken(change: dict[str, Any], message: str) -> None:
    numbers, counter = tally_of((1, 4)).to_state()
    assert tally_of().from_state(numbers, counter).to_state() == (numbers, counter)
    with pytest.raises(ValueError, match=message):
        tally_of().from_state({**numbers, **change}, counter)
    with pytest.raises(ValueError, match="a target scored 2 times"):
        tally_of().from_state(numbers, counter.replace(b"\1", b"\2"))


def test_the_data_hash_covers_what_decides_the_bytes(text: Text) -> None:
    validation = validation_of(text)
    table, stream = validation.table, validation.stream
    others = [
        replace(validation, sidecar=None),
        replace(validation, table=replace(table, base_bytes=table.base_bytes + 1)),
        replace(validation, table=replace(table, boundary=~table.boundary)),
        replace(validation, stream=TokenStream([stream.slice(0, len(stream) - 1)])),
    ]
    assert data_hash(validation) == data_hash(validation_of(text))
    assert len({data_hash(v) for v in (validation, *others)}) == 5


TAMPERED = {
    "a sidecar with other counts": ("fineweb_val_bytes_000000.bin", "has been changed"),
    "tokens that were replaced": ("fineweb_val_000000.bin", "has been changed"),
    "a shard that is gone": ("fineweb_val_000001.bin", "is missing"),
    "a sidecar that is gone": ("fineweb_val_bytes_000001.bin", "is missing"),
    "a shard that was added": ("fineweb_val_000009.bin", "is not in the manifest"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_split_that_is_not_the_exported_one_is_refused(
    text: Text, tmp_path: Path, how: str
) -> None:
    name, sentence = TAMPERED[how]
    tokenize(text.documents, text.tokenizer, tmp_path / "s", val_docs=6, shard_tokens=2000)
    path = tmp_path / "s" / name
    if "gone" in how:
        path.unlink()
    elif "added" in how:
        path.write_bytes((tmp_path / "s" / "fineweb_val_000000.bin").read_bytes())
    else:
        data = bytearray(path.read_bytes())
        data[1030] ^= 1
        path.write_bytes(data)
    where = replace(text.data, path=str(tmp_path / "s"))
    with pytest.raises(ValueError, match=f"{name}.*{sentence}"):
        open_validation(where, text.tokenizer.vocab_size)
