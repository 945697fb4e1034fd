"""The tape: plain scores in the same bits, and each rule that a scorer can break by name."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.data.shards import TokenStream
from core.data.token_bytes import ByteTable
from core.score.bpb import Scored, Tally
from core.score.protocols import ISOLATES, SLIDES, Protocol, ProtocolName
from core.score.rules import BY_ID, SCORER_BY_ID, SCORER_RULES
from core.score.scorers import Block, Nats, Plain, State
from core.score.scoring import Validation, open_tally, open_validation, score
from core.score.tape import RuleBroken, Tape, place
from core.score.windows import Rows, Window, batches, chunked, fill
from tests.conftest import Text

NAMES: tuple[ProtocolName, ...] = ("chunked", "sliding", "docs", "strided-docs")


def last_uneven(x: Rows, y: Rows) -> NDArray[np.float32]:
    """Nats that the pair (input, target) decides, whose sum depends on the order of adding."""
    inputs = x[:, x.shape[1] - y.shape[1] :]
    return ((7.1 * inputs + 3.3 * y) % 11 / 3).astype(np.float32)


def validation_of(text: Text, name: ProtocolName = "chunked", limit: int = 0) -> Validation:
    protocol = Protocol(name=name, stride=16)
    return open_validation(
        text.data, text.tokenizer.vocab_size, limit, seq_len=64, protocol=protocol
    )


def as_before(validation: Validation, seq_len: int, batch: int) -> tuple[float, int]:
    """Chunked scoring as it was written before there was a tape."""
    stream, nats, num_bytes = validation.stream, 0.0, 0
    for group in batches(chunked(len(stream), seq_len), batch):
        x, y = fill(stream, group, batch, seq_len)
        rows = last_uneven(x, y)
        for row, window in enumerate(group):
            nats += float(rows[row, : window.count].astype(np.float64).sum())
            tokens = stream.slice(window.start, window.stop)
            num_bytes += int(validation.table.count(tokens[:-1], tokens[1:]).sum())
    return nats, num_bytes


@pytest.mark.parametrize("seq_len", [7, 64, 1000, 100_000])
@pytest.mark.parametrize("batch", [1, 5])
def test_chunked_scores_have_the_same_bits_as_ever(text: Text, seq_len: int, batch: int) -> None:
    validation = validation_of(text)
    scored = score(last_uneven, validation, seq_len, batch)
    assert (scored.nats, scored.bytes) == as_before(validation, seq_len, batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_score_of_pairs_is_the_same_by_every_protocol(text: Text, name: ProtocolName) -> None:
    validation = validation_of(text, name)
    found, plain = (score(last_uneven, v, 64, 7) for v in (validation, validation_of(text)))
    assert found.nats == pytest.approx(plain.nats, rel=1e-12)
    assert replace(found, nats=0.0) == replace(plain, nats=0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [0, 3000])
def test_every_protocol_goes_on_from_where_it_stopped(
    text: Text, name: ProtocolName, limit: int
) -> None:
    validation = validation_of(text, name, limit)
    states: list[tuple[dict[str, object], bytes]] = []
    whole = score(last_uneven, validation, 64, 7, lambda tally: states.append(tally.to_state()))
    for state in (states[0], states[len(states) // 2], states[-1]):
        tally = open_tally(validation, 64).from_state(*state)
        assert score(last_uneven, validation, 64, 7, None, tally) == whole


def test_the_interval_of_the_first_targets_is_of_stretches(text: Text) -> None:
    """The order of the plan is not that of the text; the blocks of the interval are."""
    found = [score(last_uneven, validation_of(text, n, 3000), 64, 7) for n in ("chunked", "docs")]
    (low, high), (other_low, other_high) = (one.interval or (0.0, 0.0) for one in found)
    assert other_high - other_low == pytest.approx(high - low, rel=0.5)


class Rank:
    """One of several ranks, run in turn: what the others would give is computed here."""

    def __init__(self, rank: int, world_size: int, said: list[list[Nats]]) -> None:
        self.rank, self.world_size, self._said, self._turn = rank, world_size, said, 0

    def gather(self, rows: Nats) -> Nats:
        if self._turn == len(self._said):
            self._said.append([np.zeros_like(rows)] * self.world_size)
        self._said[self._turn][self.rank] = rows
        self._turn += 1
        return np.stack(self._said[self._turn - 1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_give_the_same_bits(text: Text, name: ProtocolName, world_size: int) -> None:
    """The ranks before the last see zeros of those behind; the last one has all nats."""
    validation = validation_of(text, name)
    alone = score(last_uneven, validation, 64, 5)
    said: list[list[Nats]] = []
    calls = [0] * world_size
    for rank in range(world_size):

        def counted(x: Rows, y: Rows, rank: int = rank) -> Nats:
            calls[rank] += 1
            return last_uneven(x, y)

        last = score(counted, validation, 64, 5, ranks=Rank(rank, world_size, said))
    assert last == alone
    groups = len(list(batches(validation.windows(64), 5)))
    assert max(calls) <= groups // world_size + 3, "each rank computes its share"


# What a scorer may not do.

TOKENS = np.array([1, 5, 6, 7, 1, 8, 9, 5, 6, 7, 8, 1, 5], np.uint16)
SEQ_LEN = 4


class Honest:
    """Counts what it has observed."""

    adapts = True

    def __init__(self) -> None:
        self.seen = np.zeros(16, np.int64)
        self.tape: Tape | None = None

    def score(self, block: Block) -> Nats:
        return np.ones(block.y.shape, np.float32)

    def observe(self, block: Block) -> None:
        for window, row in zip(block.windows, block.y, strict=False):
            np.add.at(self.seen, row[: window.count], 1)

    def state(self) -> State:
        return {"seen": self.seen}


class UpdatesFirst(Honest):
    """Trains on the block, then scores it."""

    def score(self, block: Block) -> Nats:
        self.observe(block)
        return super().score(block)


class UpdatesBetween(Honest):
    """Changes behind the tape's back."""

    def score(self, block: Block) -> Nats:
        self.seen[0] += 1
        nats = super().score(block)
        self.seen[0] -= 1
        self.seen = self.seen.astype(np.int32)
        return nats


class LooksAhead(Honest):
    """Asks for the block's own last target."""

    def score(self, block: Block) -> Nats:
        assert self.tape is not None
        self.tape.tokens(0, block.windows[-1].stop)
        return super().score(block)


def tape_of(windows: list[Window] | None = None, batch: int = 1) -> Tape:
    stream = TokenStream([TOKENS])
    plan = list(chunked(len(TOKENS), SEQ_LEN)) if windows is None else windows

    def bytes_of(window: Window) -> tuple[NDArray[np.int64], None]:
        return np.ones(window.count, np.int64), None

    return Tape(stream, plan, (batch, SEQ_LEN), bytes_of, Tally(len(TOKENS), has_raw=False))


BREAKS: list[tuple[Callable[[], Honest], list[Window] | None, str, str]] = [
    (UpdatesFirst, None, "score first", "state changed before target 1 was scored"),
    (UpdatesBetween, None, "score first", "state changed before target 1 was scored"),
    (LooksAhead, None, "causality", "token 1 was asked for before it was scored"),
    (Honest, [Window(4, 4), Window(0, 4)], "single pass", "is at target 1, the plan's next is 5"),
    (Honest, [Window(0, 4), Window(0, 4)], "single pass", "is at target 5, the plan's next is 1"),
]


@pytest.mark.parametrize(("scorer", "windows", "rule", "evidence"), BREAKS)
def test_a_broken_rule_is_named(
    scorer: Callable[[], Honest], windows: list[Window] | None, rule: str, evidence: str
) -> None:
    tape, breaks = tape_of(windows), scorer()
    breaks.tape = tape
    with pytest.raises(RuleBroken, match=evidence) as error:
        tape.play(breaks)
    assert error.value.rule == SCORER_BY_ID[rule]
    for said in (f"rule {rule}: ", SCORER_BY_ID[rule].what, SCORER_BY_ID[rule].source):
        assert said in str(error.value)


def test_a_target_scored_again_is_refused_with_the_first_score_kept() -> None:
    tape = tape_of([Window(0, 4), Window(2, 4)])
    with pytest.raises(RuleBroken, match="rule once: .* target 3 was scored before"):
        tape.play(Plain(lambda x, y: np.ones(y.shape, np.float32)))
    assert tape.tally.targets == 4


def test_nothing_is_more_than_certain() -> None:
    """A probability above 1 is no probability, whatever it is taken from; rounding is none."""

    def by(least: float) -> Callable[[Rows, Rows], Nats]:
        return lambda x, y: np.where(y == 9, least, 1.0).astype(np.float32)

    tape = tape_of()
    with pytest.raises(RuleBroken, match="rule normalised: .* target 6 has -0.25 nats: more than"):
        tape.play(Plain(by(-0.25)))
    assert tape.tally.targets == 4
    tape_of().play(Plain(by(-1e-6)))


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_a_byte_a_target(name: ProtocolName) -> None:
    """Beside what a batch takes: 8 MiB here."""
    count = 1 << 24
    tokens = np.full(count, 5, np.uint16)
    tokens[::50_000] = 1
    ones = np.ones(8, np.int64)
    table = ByteTable(ones, ones < 0, ones < 0)
    protocol = Protocol(name=name, stride=2048)
    validation = Validation(TokenStream([tokens]), None, table, None, "", protocol)
    tracemalloc.start()
    scored = score(lambda x, y: np.ones(y.shape, np.float32), validation, 4096, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scored.tokens == count - 1
    assert peak < count + (8 << 20), f"{peak / count:.2f} bytes a target"


def test_an_honest_scorer_sees_what_is_behind_it() -> None:
    tape, scorer = tape_of(), Honest()
    looked: list[list[int]] = []
    hashes: list[str] = []

    def after(tally: Tally) -> None:
        looked.append(tape.tokens(0, tally.targets + 1).tolist())
        hashes.append(tape.state_hash)

    tape.play(scorer, after)
    assert looked == [TOKENS[:n].tolist() for n in (5, 9, 13)]
    assert scorer.seen.sum() == len(TOKENS) - 1 and len(set(hashes)) == 3
    with pytest.raises(ValueError, match="2 ranks and a scorer that adapts"):
        tape_of().play(Honest(), ranks=Rank(0, 2, []))
    with pytest.raises(ValueError, match="cannot go on behind target 12"):
        tape.play(Honest())


def test_a_block_that_fails_leaves_the_blocks_before_it() -> None:
    def nats_of(x: Rows, y: Rows) -> Nats:
        nats = np.ones(y.shape, np.float32)
        nats[y == 9] = np.nan
        return nats

    tape = tape_of(batch=1)
    sentence = "loss of target 6 is not finite: nan; it is token 2 of document 2"
    with pytest.raises(ValueError, match=sentence):
        tape.play(Plain(nats_of))
    assert (tape.tally.windows, tape.tally.targets) == (1, 4)
    with pytest.raises(ValueError, match=r"nats of shape \(1, 3\), expected \(1, 4\)"):
        tape_of().play(Plain(lambda x, y: np.ones((1, 3), np.float32)))


def test_places_are_named_by_document() -> None:
    stream = TokenStream([TOKENS])
    said = [place(stream, position) for position in (0, 3, 4, 12)]
    assert said == [
        *("token 0 of document 1", "token 3 of document 1"),
        *("token 0 of document 2", "token 1 of document 3"),
    ]
    assert place(TokenStream([TOKENS[1:]]), 0) == "token 0 of document 0"


def test_the_rules_of_scoring_are_rows() -> None:
    assert len(SCORER_BY_ID) == len(SCORER_RULES) and not SCORER_BY_ID.keys() & BY_ID.keys()
    assert all(rule.what and rule.source and rule.status for rule in SCORER_RULES)


@given(st.sampled_from(NAMES), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.data())
def test_no_nats_are_lost_or_moved(
    name: ProtocolName, seq_len: int, stride: int, batch: int, data: st.DataObject
) -> None:
    """Each target's nats tell its position, its context and its batch does not matter."""
    tokens = data.draw(st.lists(st.sampled_from([1, 7, 8, 9]), min_size=2, max_size=40))
    stream = TokenStream([np.array(tokens, np.uint16)])
    protocol = Protocol(name=name, seq_len=seq_len, stride=1 + stride % seq_len)
    seen: dict[int, int] = {}

    def bytes_of(window: Window) -> tuple[NDArray[np.int64], None]:
        seen.update({t: seen.get(t, 0) + 1 for t in range(window.first, window.stop)})
        return np.ones(window.count, np.int64), None

    def depth(x: Rows, y: Rows) -> Nats:
        """How many inputs are before a target in its row."""
        shown = np.arange(x.shape[1] - y.shape[1], x.shape[1], dtype=np.float32) + 1
        return np.broadcast_to(shown, y.shape)

    tally = Tally(len(tokens), has_raw=False)
    windows = protocol.windows(stream, 1000)
    Tape(stream, windows, (batch, seq_len), bytes_of, tally).play(Plain(depth))
    scored: Scored = tally.result()
    assert seen == dict.fromkeys(range(1, len(tokens)), 1) and scored.bytes == len(tokens) - 1
    assert scored.nats == sum(expected_depths(tokens, protocol))


def expected_depths(tokens: list[int], protocol: Protocol) -> list[int]:
    """How many tokens each target has before it, by the words of the protocol."""
    stride = protocol.stride if protocol.name in SLIDES else protocol.seq_len
    depths, begins = [], 0
    for target in range(1, len(tokens)):
        if protocol.name in ISOLATES and tokens[target - 1] == 1:
            begins = target - 1
        before = target - begins
        over = max(0, before - protocol.seq_len)
        depths.append(before - -(-over // stride) * stride)
    return depths
