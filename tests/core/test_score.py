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

from core.arch.fields import to_plain
from core.arch.noise import uniform
from core.data.batches import Data
from core.data.export import tokenize
from core.data.shards import TokenStream
from core.data.token_bytes import byte_table
from core.data.tokenizer import train_tokenizer
from core.score.bpb import Scored, Tally, bits_per_byte
from core.score.scoring import (
    Score,
    Validation,
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
    windows = list(chunked(num_tokens, SEQ_LEN))
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
    assert json.dumps(to_plain(Score()))


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
