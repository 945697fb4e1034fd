"""Adaptation in numbers alone: what is scored when, what learns from it, and that no rule bends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.arch.plan import forward_plan
from core.arch.spec import BOS, ModelSpec
from core.data.shards import TokenStream
from core.data.token_bytes import ByteTable
from core.score.adaptation import Adapt, Adaptation, Lora, Phased, Sgd, adapter_sizes, first_down
from core.score.adapted import (
    Unmoved,
    adapted_windows,
    require_unadapted,
    score_adapting,
    warm_up,
)
from core.score.adapting import Marks, PerDocument, in_rows
from core.score.bpb import Tally
from core.score.courses import Chunks, Documents, Turn, all_windows, plan_of
from core.score.protocols import ISOLATES, Protocol, ProtocolName
from core.score.rules import SCORER_BY_ID
from core.score.scorers import Block, Nats, State
from core.score.scoring import Score, Validation, score
from core.score.subsets import Subset
from core.score.tape import Course, RuleBroken, Tape
from core.score.windows import Rows, Window, Windows
from core.train.recipe import as_plain, from_json, recipe_hash, to_json, with_changes
from core.train.recipes import named

VOCAB = 24
SPEC = ModelSpec(
    vocab_size=VOCAB, num_layers=2, model_dim=8, num_heads=2, num_kv_heads=1, mlp_dim=8, seq_len=12
)
NAMES: tuple[Adapt, ...] = ("sgd", "lora", "phased")
PROTOCOLS: dict[Adapt, tuple[ProtocolName, ...]] = {
    "sgd": ("chunked", "sliding", "docs", "strided-docs"),
    "lora": ISOLATES,
    "phased": ISOLATES,
}


def how(name: Adapt, docs_batch: int = 3) -> Adaptation:
    return Adaptation(
        name=name,
        sgd=Sgd(chunk_tokens=30, batch_seqs=2, epochs=2),
        lora=Lora(rank=2, docs_batch=docs_batch),
        phased=Phased(prefix_docs=9, phases=2),
    )


def text(lengths: list[int]) -> TokenStream:
    """Documents of so many tokens, BOS first; the last one is ended by a BOS."""
    parts = [
        [BOS, *(2 + (7 * d + i * i) % (VOCAB - 2) for i in range(n - 1))]
        for d, n in enumerate(lengths)
    ]
    return TokenStream([np.array([*(t for part in parts for t in part), BOS], np.uint16)])


def validation_of(
    stream: TokenStream, name: ProtocolName, adaptation: Adaptation | None, stride: int = 5
) -> Validation:
    ones = np.ones(VOCAB, np.int64)
    table = ByteTable(ones, ones < 0, ones < 0)
    protocol = Protocol(name=name, stride=stride)
    return Validation(stream, None, table, None, "", protocol, adaptation)


def windows_of(validation: Validation) -> Windows:
    windows = validation.windows(SPEC.seq_len)
    assert isinstance(windows, Windows)
    return windows


LENGTHS = [14, 3, 40, 8, 1, 25, 25, 60, 2, 11, 33, 7]


class Recorder:
    """An engine that counts: nats are told by what it was taught, and by a target's context."""

    def __init__(self) -> None:
        self.rows = 0
        self.learned = np.zeros(0, np.int64)  # steps of each row's adapters
        self.moved = np.zeros(1, np.int64)
        self.taught: list[tuple[str, Any]] = []
        self._pending: Marks | None = None

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
        self._pending = marks
        depth = np.arange(x.shape[1] - y.shape[1], x.shape[1], dtype=np.float32) + 1
        return np.broadcast_to(depth, y.shape) / 64 + 1

    def learn(self) -> None:
        assert self._pending is not None and len(self._pending) == len(self.learned)
        sums = self._pending.sum(1)
        taught = sums > 0
        assert np.allclose(sums[taught], 1, atol=1e-6), "the mean of each document"
        self.learned += taught
        self.taught.append(("learn", int(taught.sum())))

    def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
        assert abs(float(marks.sum()) - 1) < 1e-5
        self.moved += 1
        pairs = np.stack([x[marks > 0], y[marks > 0]])
        self.taught.append(("descend", (pairs, lr)))

    def still(self) -> None:
        self.taught.append(("still", None))

    def reset(self, rows: int, warm: bool) -> None:
        self.learned = np.zeros(rows, np.int64)
        self.taught.append(("reset", (rows, warm)))

    def trim(self, rows: int) -> None:
        self.learned = self.learned[:rows].copy()

    def state(self) -> State:
        return {"learned": self.learned, "moved": self.moved}


def played(adaptation: Adaptation, name: ProtocolName, batch: int = 4) -> tuple[Recorder, float]:
    """What an engine is told, and the score."""
    validation = validation_of(text(LENGTHS), name, adaptation)
    plain = score(Recorder().nats, validation.plain(), SPEC.seq_len, batch)
    learner = Recorder()
    found = score_adapting(learner, learner.nats, validation, SPEC, batch, "fp32")
    assert (found.tokens, found.bytes) == (plain.tokens, plain.bytes)
    assert found.nats == pytest.approx(plain.nats, rel=1e-12), "the contexts are the protocol's"
    return learner, found.nats


@pytest.mark.parametrize(("name", "protocol"), [(n, p) for n in NAMES for p in PROTOCOLS[n]])
@pytest.mark.parametrize("batch", [1, 4])
def test_targets_and_contexts_are_those_of_the_protocol(
    name: Adapt, protocol: ProtocolName, batch: int
) -> None:
    learner, _ = played(how(name), protocol, batch)
    kinds = {kind for kind, _ in learner.taught}
    wanted = {"sgd": {"descend"}, "lora": {"learn", "reset"}}
    wanted["phased"] = wanted["lora"] | wanted["sgd"]
    assert wanted[name] <= kinds and ("learn" in kinds) == how(name).per_document


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
    st.sampled_from(["sliding", "strided-docs", "docs"]),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 50),
)
def test_every_target_is_scored_once_and_each_document_from_left_to_right(
    lengths: list[int], name: ProtocolName, stride: int, batch: int, chunk: int
) -> None:
    stream = text(lengths)
    for adapt in NAMES:
        if name not in PROTOCOLS[adapt]:
            continue
        adaptation = how(adapt, batch)
        adaptation = replace(adaptation, sgd=replace(adaptation.sgd, chunk_tokens=chunk))
        validation = validation_of(stream, name, adaptation, stride)
        windows = windows_of(validation)
        plan = plan_of(windows, adaptation, batch)
        done = [t for w in all_windows(plan) for t in range(w.first, w.stop)]
        assert sorted(done) == list(range(1, len(stream)))
        assert sum(plan.sizes) == (len(done) if adapt == "sgd" else len(windows.edges) - 1)
        tally = Tally(len(stream), has_raw=False)
        course = Course(blocks=(turn.windows for turn in plan), edges=windows.edges)
        tape = Tape(stream, windows, (batch, 12), ones, tally, course)
        tape.play(Silent())
        assert tally.result().tokens == len(done)


def ones(window: Window) -> tuple[NDArray[np.int64], None]:
    return np.ones(window.count, np.int64), None


class Silent:
    """Adapts in name."""

    adapts = True

    def score(self, block: Block) -> Nats:
        return np.ones(block.y.shape, np.float32)

    def observe(self, block: Block) -> None:
        pass

    def state(self) -> State:
        return {}


class Warmed(Recorder):
    """Keeps the ids that it is shown, and whether anything stays of them."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Rows] = []

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
        self.shown += [x, y]
        return super().nats(x, y, marks)

    def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
        self.shown += [x, y]
        assert lr == 0, "the weights stay"
        super().descend(x, y, marks, lr)


@pytest.mark.parametrize("name", NAMES)
def test_what_warms_up_knows_nothing_of_validation(name: Adapt) -> None:
    """Ids that no split can move, and of the whole vocabulary; then everything starts anew."""
    told = []
    for lengths in (LENGTHS, [60, 50, 2]):
        learner = Warmed()
        validation = validation_of(text(lengths), PROTOCOLS[name][-1], how(name))
        warm_up(learner, validation, SPEC)
        told.append(np.concatenate([rows.ravel() for rows in learner.shown]))
        assert learner.taught[-1][0] == ("still" if how(name).descends else "reset")
        assert not learner.learned.any()
    assert np.array_equal(*told) and len({*told[0].tolist()}) > 8
    assert told[0].min() >= 0 and VOCAB // 2 < told[0].max() < VOCAB


def test_chunks_hold_whole_windows() -> None:
    """65,536 and some targets in windows of 2048 and strides of 64: chunks of exactly 32,768."""
    tokens = np.full(70_000, 5, np.uint16)
    windows = Protocol(name="sliding", stride=64).windows(TokenStream([tokens]), 2048)
    assert Chunks(windows, Sgd(), 32).sizes == [32_768, 32_768, 69_999 - 65_536]
    turns = list(Chunks(windows, Sgd(), 32))
    ends = [turn.windows[-1].stop - 1 for turn in turns if turn.ends]
    assert ends == [32_768, 65_536, 69_999]
    assert all(len(turn.windows) <= 32 for turn in turns)


def test_the_weights_learn_from_each_scored_chunk_but_the_last() -> None:
    learner, _ = played(how("sgd"), "sliding")
    stream = text(LENGTHS)
    tokens = stream.slice(0, len(stream)).astype(np.int64)
    taught = [value for kind, value in learner.taught if kind == "descend"][1:]  # one warms up
    sgd = how("sgd").sgd
    sizes = Chunks(windows_of(validation_of(stream, "sliding", None)), sgd, 4).sizes
    assert len(sizes) > 5
    rates = [rate for _, rate in taught]
    begins, most = np.cumsum([0, *sizes[:-2]]), sum(sizes) - sgd.chunk_tokens
    expected = [0.005 * 0.5 * (1 + math.cos(math.pi * at / most)) for at in begins]
    assert sorted({*rates}, reverse=True) == pytest.approx(expected)
    once = np.concatenate([pairs for pairs, rate in taught], axis=1)
    shown = len(once[0])
    assert shown % 2 == 0, "two epochs"
    first = [pairs for pairs, rate in taught if rate == rates[0]]
    both = np.concatenate(first, axis=1)
    begin = both[:, : len(both[0]) // 2]
    assert np.array_equal(begin, np.stack([tokens[: len(begin[0])], tokens[1 : len(begin[0]) + 1]]))
    last = 30
    assert len(tokens) - 1 - last <= shown // 2 < len(tokens) - 1, "all but the last chunk"


def test_documents_stand_side_by_side_the_longest_first() -> None:
    stream = text(LENGTHS)
    windows = windows_of(validation_of(stream, "strided-docs", None))
    plan = Documents(windows, Lora(docs_batch=5))
    lengths = np.diff(windows.edges)[plan.order]
    assert lengths.tolist() == sorted(LENGTHS, reverse=True) and plan.sizes == [5, 5, 2]
    turns: list[Turn] = list(plan)
    assert sum(turn.ends for turn in turns) == 3
    sizes = iter(plan.sizes[1:])
    for before, turn in pairwise(turns):
        rows = next(sizes) if before.ends else before.learns
        assert len(turn.windows) == rows and before.ends == (before.learns == 0)
        assert len({window.skip for window in turn.windows}) == 1
    assert [window.count for window in turns[0].windows] == [5] * 5, "a chunk is a stride"


def test_adapters_learn_behind_every_block_but_a_documents_last() -> None:
    learner, _ = played(how("lora"), "strided-docs")
    at = next(i for i, (kind, v) in enumerate(learner.taught) if v == (3, False) and i > 3)
    told = learner.taught[at:]
    steps = sum(value for kind, value in told if kind == "learn")
    pieces = [math.ceil(min(n, 12) / 5) + max(0, math.ceil((n - 12) / 5)) for n in LENGTHS]
    assert steps == sum(pieces) - len(LENGTHS)
    resets = [value for kind, value in told if kind == "reset"]
    assert resets == [(3, False), (3, True), (3, True), (3, True)], "the first starts cold"


def test_phases_learn_from_the_documents_that_are_scored() -> None:
    learner, _ = played(how("phased"), "strided-docs")
    stills = [i for i, (kind, _) in enumerate(learner.taught) if kind == "still"]
    phases = stills[-2:]
    assert how("phased").phased.boundaries(12) == (4, 9)
    order = sorted(range(12), key=lambda d: (-LENGTHS[d], d))
    for begin, documents in zip(phases, (4, 9), strict=True):
        rest = learner.taught[begin + 1 :]
        stop = next(i for i, (kind, _) in enumerate(rest) if kind != "descend")
        descents = [value for _, value in rest[:stop]]
        shown = sum(len(pairs[0]) for pairs, _ in descents)
        assert shown == 2 * sum(LENGTHS[d] for d in order[:documents]), "two epochs"
        assert descents[0][1] == 0.005 and descents[-1][1] == pytest.approx(0, abs=1e-9)
        assert rest[stop] == ("reset", (3, False)), "adapters start anew behind a phase"


# What may not be done.


class Peeks(PerDocument):
    """Learns from a document before it is scored."""

    def score(self, block: Block) -> Nats:
        self._look(*self._plan.inputs_of(self._plan.order[-1]))
        return super().score(block)


class LearnsFirst(PerDocument):
    """Takes its step before the block is scored."""

    def score(self, block: Block) -> Nats:
        nats = super().score(block)
        self._learner.learn()
        return nats


class DescendsFirst(PerDocument):
    def score(self, block: Block) -> Nats:
        marks = np.full(block.y.shape, 1 / block.y.size, np.float32)
        self._learner.descend(block.x[:, -block.y.shape[1] :], block.y, marks, 0.1)
        return super().score(block)


CHEATS: list[tuple[type[PerDocument], str]] = [
    (Peeks, "causality"),
    (LearnsFirst, "score first"),
    (DescendsFirst, "score first"),
]


@pytest.mark.parametrize(("kind", "rule"), CHEATS)
def test_a_cheat_is_told_its_rule(kind: type[PerDocument], rule: str) -> None:
    stream, adaptation = text(LENGTHS), how("lora")
    validation = validation_of(stream, "strided-docs", adaptation)
    windows = windows_of(validation)
    plan = Documents(windows, adaptation.lora)
    course = Course(blocks=(turn.windows for turn in plan), edges=windows.edges)
    tally = Tally(len(stream), has_raw=False)
    tape = Tape(stream, windows, (4, 12), ones, tally, course)
    with pytest.raises(RuleBroken) as error:
        tape.play(kind(Recorder(), plan, adaptation, 12, tape.tokens))
    assert error.value.rule == SCORER_BY_ID[rule]


WRONG_COURSES: list[tuple[list[Window], str]] = [
    ([Window(4, 2), Window(0, 4)], "is at target 1, the plan's next is 5"),
    ([Window(0, 2), Window(0, 2)], "is at target 3, the plan's next is 1"),
    ([Window(6, 3), Window(0, 8)], "targets 1 to 8 reaches beyond target 6"),
    ([Window(6, 2), Window(3, 1)], "is at target 1, the plan's next is 4"),
]


@pytest.mark.parametrize(("windows", "evidence"), WRONG_COURSES)
def test_the_order_within_a_stretch_is_kept(windows: list[Window], evidence: str) -> None:
    stream = text([6, 6])
    course = Course(blocks=[[window] for window in windows], edges=np.array([0, 6, 12]))
    tape = Tape(stream, windows, (1, 12), ones, Tally(13, has_raw=False), course)
    with pytest.raises(RuleBroken, match=f"single pass: .*{evidence}"):
        tape.play(Silent())


def test_the_first_input_of_a_document_may_be_seen_once_it_is_scored() -> None:
    stream, seen = text([6, 6]), []
    blocks = [[Window(6, 6)], [Window(0, 6)]]
    course = Course(blocks=blocks, edges=np.array([0, 6, 12]))
    tape = Tape(stream, blocks[0], (1, 12), ones, Tally(13, has_raw=False), course)
    with pytest.raises(RuleBroken, match="token 6 was asked for"):
        tape.tokens(6, 7)

    def after(tally: Tally) -> None:
        seen.append(tape.tokens(6, 13).tolist())
        if len(seen) == 1:
            with pytest.raises(RuleBroken, match="token 5 was asked for"):
                tape.tokens(5, 7)

    tape.play(Silent(), after)
    assert seen == [stream.slice(6, 13).tolist()] * 2


def test_a_model_that_differs_before_it_learns_is_refused() -> None:
    learner = Recorder()
    validation = validation_of(text(LENGTHS), "strided-docs", how("lora"))

    def other(x: Rows, y: Rows) -> Nats:
        return learner.nats(x, y) + np.float32(1e-5)

    require_unadapted(learner, learner.nats, validation, SPEC, 4, "fp32")
    require_unadapted(learner, other, validation, SPEC, 4, "cast")
    sentence = (
        r"scores 1\.\d{8} BPB over the first 48 targets, the plain one 1\.\d{8}: more than 1e-06"
    )
    with pytest.raises(ValueError, match=sentence):
        require_unadapted(learner, other, validation, SPEC, 4, "fp32")
    assert not any(kind in ("learn", "descend") for kind, _ in learner.taught)
    assert isinstance(Unmoved(learner).state()["moved"], np.ndarray)


@pytest.mark.parametrize("name", NAMES)
def test_warming_up_shows_random_tokens(name: Adapt) -> None:
    """The first thing that an engine sees is not of the split, and nothing stays of it."""
    shown: list[Rows] = []

    class Shown(Recorder):
        def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
            shown.append(x)
            return super().nats(x, y, marks)

        def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
            shown.append(x)
            super().descend(x, y, marks, lr)
            self.taught[-1] = ("descend", lr)

    learner, stream = Shown(), text(LENGTHS)
    protocol = PROTOCOLS[name][-1]
    score_adapting(
        learner, Recorder().nats, validation_of(stream, protocol, how(name)), SPEC, 4, "fp32"
    )
    tokens = stream.slice(0, len(stream)).tolist()
    row = shown[0][0].tolist()
    assert not any(tokens[i : i + len(row)] == row for i in range(len(tokens)))
    if name != "lora":
        assert learner.taught[[k for k, _ in learner.taught].index("descend")] == ("descend", 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_subset_is_labelled_and_read_no_further(name: Adapt) -> None:
    validation = validation_of(text(LENGTHS), PROTOCOLS[name][-1], how(name))
    part = replace(validation, subset=Subset(name="first-100", targets=100))
    learner = Recorder()
    found = score_adapting(learner, learner.nats, part, SPEC, 4, "fp32")
    assert found.tokens == 100 and found.interval is not None
    assert max(w.stop for w in adapted_windows(part, 12, 4)) == 101
    assert adapted_windows(validation, 12, 4) == ()


def test_rows_of_a_chunk() -> None:
    tokens = np.arange(24, dtype=np.uint16)
    steps = list(in_rows(tokens[:-1], tokens[1:], 5, 2))
    assert [x.shape for x, _, _ in steps] == [(2, 5), (2, 5), (1, 3)]
    for x, y, marks in steps:
        assert np.array_equal(y[marks > 0], x[marks > 0] + 1)
        assert float(marks.sum()) == pytest.approx(1)
    (x, y, marks), *_ = in_rows(tokens[:7], tokens[1:8], 5, 2)
    assert x.shape == (2, 5) and (marks > 0).sum() == 7 and marks[1, 2:].sum() == 0


# Settings.


def test_the_records_carry_their_numbers() -> None:
    sgd, phased = named("r1081").score, named("r1061").score
    assert sgd.adapt == "sgd" and (sgd.sgd.lr, sgd.sgd.epochs, sgd.sgd.chunk_tokens) == (
        *(0.005, 3),
        32_768,
    )
    assert (sgd.sgd.momentum, sgd.sgd.clip_norm, sgd.stride) == (0.9, 1.0, 64)
    lora = phased.lora
    assert phased.adapt == "phased" and phased.stride == 48
    assert (lora.rank, lora.alpha, lora.lr, lora.docs_batch) == (80, 144.0, 1e-4, 64)
    assert (lora.beta1, lora.beta2, lora.eps, lora.weight_decay) == (0.0, 0.99, 1e-10, 0.5)
    assert (phased.sgd.lr, phased.sgd.epochs, phased.phased.prefix_docs) == (1e-3, 1, 2500)
    assert phased.phased.boundaries(50_000) == (833, 1666, 2500)
    assert phased.phased.boundaries(2) == (1, 2) and phased.phased.boundaries(1) == (1,)


def test_adapters_of_the_record_are_as_many_as_it_has() -> None:
    """6.96 million numbers a document: of 17 visits and the head."""
    spec, lora = named("r1061").arch, named("r1061").score.lora
    sides = adapter_sizes(spec)
    assert len(sides) == len(forward_plan(spec)) + 1 == 18
    count = sum(lora.rank * (i + o) for side in sides for i, o in side.values())
    assert 6.9e6 < count < 7.5e6
    first = first_down((3, "c_q"), 4, 16)
    assert first.dtype == np.float32 and np.abs(first).max() <= 0.25 and first.std() > 0.1
    assert not np.array_equal(first, first_down((4, "c_q"), 4, 16))


def test_the_rate_of_sgd_is_half_a_cosine_over_the_text() -> None:
    """Of equal chunks that of the definition; otherwise of the tokens before and of all, alone."""
    sgd = Sgd(lr=0.4, chunk_tokens=10)
    for chunk in range(5):
        by_chunks = 0.4 * 0.5 * (1 + np.cos(np.pi * chunk / 4))
        assert abs(sgd.lr_at(10 * chunk, 50) - by_chunks) < 1e-12
    assert sgd.lr_at(0, 7) == 0.4 and sgd.lr_at(48, 50) == sgd.lr_at(40, 50) == 0.0
    assert sgd.lr_at(13, 47) < sgd.lr_at(12, 47)


def test_what_is_not_used_by_default_is_no_part_of_a_recipes_name() -> None:
    """And what was set is kept, adapting or not."""
    recipe = named("small")
    assert not {"sgd", "lora", "phased"} & as_plain(recipe).get("score", {}).keys()
    other = with_changes(recipe, ["score.sgd.lr=0.1"])
    assert as_plain(other)["score"]["sgd"]["lr"] == 0.1 and "lora" not in as_plain(other)["score"]
    assert recipe_hash(other) != recipe_hash(recipe)
    for one in (recipe, other, named("r1061")):
        assert from_json(to_json(one), "here") == one


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: Sgd(lr=-1.0), r"score.sgd.lr -1.0 must be at least 0"),
    (lambda: Sgd(momentum=1.0), r"score.sgd.momentum 1.0 must be in \[0, 1\)"),
    (lambda: Sgd(chunk_tokens=0), r"score.sgd.chunk_tokens 0 must be at least 1"),
    (lambda: Lora(rank=0), r"score.lora.rank 0 must be at least 1"),
    (lambda: Lora(eps=0.0), r"score.lora.eps 0.0 must be positive"),
    (lambda: Lora(alpha=math.inf), r"score.lora.alpha inf must be at least 0.0 and finite"),
    (lambda: Phased(phases=0), r"score.phased.phases 0 must be at least 1"),
    (lambda: Score(adapt="lora"), r"score.protocol chunked reaches across them; set"),
]


@pytest.mark.parametrize(("make", "sentence"), WRONG)
def test_settings_that_make_no_sense(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()
