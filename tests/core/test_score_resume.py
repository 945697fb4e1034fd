"""A scoring that was stopped goes on to the same bits, and from no state but its own."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.data.shards import TokenStream
from core.score.adapting import Learned
from core.score.bpb import Tally
from core.score.resume import FORMAT, Task, data_hash, load_state, save_state, state_name
from core.score.scoring import (
    Validation,
    open_tally,
    score,
)
from core.score.windows import Rows
from tests.conftest import Text
from tests.core.test_score import SEQ_LEN, tally_of, validation_of


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
    tally, seconds, learned = load_state(path, TASK, open_tally(validation, seq_len), num_tokens)
    assert (tally.windows, tally.targets, seconds) == (3 * after, 3 * after * seq_len, 2.5)
    assert learned is None
    again: list[int] = []
    resumed = score(
        uneven, validation, seq_len, 3, lambda tally: again.append(tally.windows), tally
    )
    assert resumed == whole  # floats and all
    assert again[0] == min(3 * after + 3, len(validation.windows(seq_len)))


def test_a_finished_tally_goes_on_to_its_result(text: Text, tmp_path: Path) -> None:
    validation, path = validation_of(text), tmp_path / "state"
    whole = score(uneven, validation, 64, 7, lambda tally: save_state(path, TASK, tally, 1.0))
    tally, *_ = load_state(path, TASK, open_tally(validation, 64), len(validation.stream))
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
    tally, *_ = load_state(path, TASK, open_tally(validation, SEQ_LEN), num_tokens)
    with pytest.raises(ValueError, match="does not end behind a batch of 4 of these"):
        score(uneven, validation, SEQ_LEN, 4, None, tally)


ARRAYS = {"down": np.arange(6, dtype=np.float32).reshape(2, 3), "at": np.array([3, 40])}


def test_what_was_learned_is_kept_to_the_bit(text: Text, tmp_path: Path) -> None:
    path, tally = tmp_path / "state", open_tally(validation_of(text), SEQ_LEN)
    num_tokens = len(validation_of(text).stream)
    save_state(path, TASK, tally, 1.0, Learned(arrays=ARRAYS, state_hash="ab"))
    *_, learned = load_state(path, TASK, tally, num_tokens)
    assert learned is not None and learned.state_hash == "ab"
    assert learned.arrays.keys() == ARRAYS.keys()
    for name, array in learned.arrays.items():
        assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
        assert np.array_equal(array, ARRAYS[name]) and array.flags.writeable
    whole = path.read_bytes()
    for at in range(len(whole) - 70, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            load_state(path, TASK, tally, num_tokens)


WRONG_ARRAYS: list[tuple[str, str, str]] = [
    ('"<f4"', '"|O8"', "down is .O8"),
    ("[2, 3]", "[-2, -3]", "down is <f4 .-2, -3., expected"),
    ("[2, 3]", "[2, 300]", "down ends at byte"),
    ("[2, 3]", "[2, 2]", "bytes, what it describes ends at"),
    ("[2, 3]", "6", "a wrong form"),
    ('"behind_bytes": ', '"behind_bytes": -', "down ends at byte|wrong form"),
    ('"state_hash"', '"hash"', "a wrong form .'state_hash'"),
]


@pytest.mark.parametrize(("part", "other", "message"), WRONG_ARRAYS)
def test_arrays_are_checked_before_they_are_taken(
    text: Text, tmp_path: Path, part: str, other: str, message: str
) -> None:
    """A file whose checksum is right and whose words are not."""
    path, tally = tmp_path / "state", open_tally(validation_of(text), SEQ_LEN)
    save_state(path, TASK, tally, 1.0, Learned(arrays=ARRAYS, state_hash="ab"))
    _, _, rest = path.read_bytes().partition(b"\n")
    assert rest.count(part.encode()) == 1
    rest = rest.replace(part.encode(), other.encode())
    path.write_bytes(FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
    with pytest.raises(ValueError, match=message):
        load_state(path, TASK, tally, len(validation_of(text).stream))


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
