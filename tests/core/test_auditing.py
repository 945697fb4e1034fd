"""The audit in one process: what is changed, what is compared, and scorers on the tape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.arch.noise import uniform
from core.arch.spec import BOS
from core.data.findings import Finding
from core.score.answers import Answer, Record, distributions_apart
from core.score.auditing import audit
from core.score.case import Case
from core.score.mixture import CacheMixture, LogProbsOf, Normalised
from core.score.players import Start, play_on_tape
from core.score.plays import changed, plan, spread
from core.score.protocols import Protocol, ProtocolName
from core.score.rules import SCORER_BY_ID
from core.score.scorers import Block, Nats, Plain, Scorer, State
from core.score.windows import Rows
from tests.core.test_mixture import REPEATED, VOCAB, model

SEQ_LEN = 16
TEXT = np.array(REPEATED, np.int32)
TEXT[[90, 140, 260]] = BOS


def nats_of(x: Rows, y: Rows) -> Nats:
    found = model(x, y.shape[1])
    return -np.take_along_axis(found, y[..., None], -1)[..., 0]


def plain() -> tuple[Scorer, LogProbsOf]:
    return Plain(nats_of), model


def mixture() -> tuple[Scorer, LogProbsOf]:
    cache = CacheMixture(model)
    return Normalised(cache), cache.log_probs


def case_of(start: Start, name: ProtocolName = "chunked", batch: int = 2) -> Case:
    plays = plan(TEXT, VOCAB, flips=6, asks=20)
    protocol = Protocol(name=name, seq_len=SEQ_LEN, stride=4)
    return Case(
        subject="it",
        plays=plays,
        answers=play_on_tape(start, plays, protocol, SEQ_LEN, batch),
        vocab_size=VOCAB,
        isolates="docs" in name,
        real=True,
    )


def statuses(findings: list[Finding]) -> dict[str, str]:
    return {one.rule: one.status for one in findings}


@pytest.mark.parametrize("start", [plain, mixture])
@pytest.mark.parametrize("name", ["chunked", "sliding"])
def test_legal_scorers_on_the_tape_pass(start: Start, name: ProtocolName) -> None:
    found = audit(case_of(start, name))
    assert [one.rule for one in found] == list(dict.fromkeys(one.rule for one in found))
    open_ones = {"isolated documents", "context alone"}
    assert {one.rule for one in found if one.status != "PASS"} == open_ones
    told = next(one.evidence for one in found if one.rule == "score first")
    assert told.endswith("it adapts" if start is mixture else "it does not adapt")


@pytest.mark.parametrize("name", ["docs", "strided-docs"])
def test_documents_are_isolated_where_their_protocol_says_so(name: ProtocolName) -> None:
    assert statuses(audit(case_of(plain, name)))["isolated documents"] == "PASS"


def test_a_cache_that_crosses_documents_fails_the_claim() -> None:
    case = replace(case_of(mixture), isolates=True)
    assert statuses(audit(case))["isolated documents"] == "FAIL"


class Learns:
    """An honest cache, to be broken."""

    adapts = True

    def __init__(self) -> None:
        self.cache = CacheMixture(model)

    def score(self, block: Block) -> Nats:
        return Normalised(self.cache).score(block)

    def observe(self, block: Block) -> None:
        self.cache.observe(block)

    def state(self) -> State:
        return self.cache.state()


class UpdatesFirst(Learns):
    """Learns a block before it scores it."""

    def score(self, block: Block) -> Nats:
        self.observe(block)
        return super().score(block)


class HidesIt(UpdatesFirst):
    """The same, and its state is never shown."""

    def state(self) -> State:
        return {}


class Sharpens(Learns):
    """Nats that are not those of its distribution."""

    def score(self, block: Block) -> Nats:
        return 0.9 * super().score(block)


BREAKS: list[tuple[type[Learns], str, str]] = [
    (UpdatesFirst, "score first", "state changed before target 1 was scored"),
    (HidesIt, "causality", "tokens behind"),
    (Sharpens, "own distribution", "nats were scored"),
]


@pytest.mark.parametrize(("scorer", "rule", "evidence"), BREAKS)
def test_a_broken_scorer_is_named(scorer: type[Learns], rule: str, evidence: str) -> None:
    def start() -> tuple[Scorer, LogProbsOf]:
        broken = scorer()
        return broken, broken.cache.log_probs

    found = {one.rule: one for one in audit(case_of(start, batch=1)) if one.status == "FAIL"}
    assert rule in found and evidence in found[rule].evidence
    assert found[rule].source == SCORER_BY_ID[rule].source


def test_an_engine_that_fails_is_no_verdict() -> None:
    def start() -> tuple[Scorer, LogProbsOf]:
        return Plain(lambda x, y: np.full(y.shape, np.nan, np.float32)), model

    with pytest.raises(ValueError, match="it did not score the text: the loss of target 1 is not"):
        audit(case_of(start))


# What one answer shows, with something of it changed by hand.


def answers_with(case: Case, change: Callable[[Answer], Answer]) -> Case:
    return replace(case, answers=[change(case.answers[0]), *case.answers[1:]])


@pytest.fixture(scope="module")
def honest() -> Case:
    return case_of(mixture)


def test_each_count_and_sum_is_looked_at(honest: Case) -> None:
    def with_target(**changes: object) -> Callable[[Answer], Answer]:
        return lambda answer: replace(answer, **changes)  # type: ignore[arg-type]

    base = honest.base
    twice, nats = base.times.copy(), base.nats.copy()
    twice[7], nats[9] = 2, -0.5
    asked = sorted(base.log_probs)[3]
    higher = {**base.log_probs, asked: base.log_probs[asked] + 0.01}
    bytes_ok = {asked: np.array([base.nats[asked] / 2] * 2)}
    bytes_off = {asked: np.array([base.nats[asked] / 2] * 3)}
    table = {
        "once": (with_target(times=twice), "target 7 was scored 2 times"),
        "normalised": (with_target(nats=nats), "target 9 has -0.5 nats: more than certain"),
        "own distribution": (with_target(byte_nats=bytes_off), "by its bytes together"),
    }
    for rule, (change, evidence) in table.items():
        found = next(one for one in audit(answers_with(honest, change)) if one.rule == rule)
        assert found.status == "FAIL" and evidence in found.evidence
    found_sum = statuses(audit(answers_with(honest, with_target(log_probs=higher))))
    assert found_sum["normalised"] == "FAIL"
    fine = audit(answers_with(honest, with_target(byte_nats=bytes_ok)))
    assert statuses(fine)["own distribution"] == "PASS"
    nothing = statuses(audit(answers_with(honest, with_target(log_probs={}))))
    assert nothing["normalised"] == nothing["own distribution"] == "UNDECIDED"


def test_chance_is_no_pass(honest: Case) -> None:
    """Where two equal plays differ, ten times that is a difference, and less leaves rules open."""
    again = honest.answers[1]
    noisy = replace(again, nats=again.nats + 0.01)
    found = statuses(audit(replace(honest, answers=[honest.base, noisy, *honest.answers[2:]])))
    assert found["repeatable"] == "FAIL"
    assert found["causality"] == found["normalised"] == found["once"] == "UNDECIDED"


def test_a_row_of_sure_targets_is_not_passed(honest: Case) -> None:
    nats = honest.base.nats.copy()
    nats[100:170] = 0.01
    found = {one.rule: one for one in audit(replace(honest, answers=[
        replace(honest.base, nats=nats, log_probs={}), *honest.answers[1:]]))}  # fmt: skip
    assert found["no validation inside"].status == "UNDECIDED"
    assert "70 targets from 100 on are scored below" in found["no validation inside"].evidence
    not_real = statuses(audit(replace(honest, real=False)))
    assert not_real["no validation inside"] == "UNDECIDED"


def test_tokens_that_are_known_behind_another_text(honest: Case) -> None:
    """Many different ones are a FAIL, a few could be a habit, one of a hundred is chance."""
    other, tokens = honest.answers[-1], honest.plays[0].tokens
    places = [t for t in sorted(other.log_probs) if honest.plays[-1].tokens[t] != tokens[t]]
    kinds = list({int(tokens[t]): t for t in places}.values())
    chance, many = len(places) // 100, max(3, -(-len(places) // 20))
    assert len(kinds) >= many > chance + 1
    counts = {0: "PASS", chance: "PASS", chance + 1: "UNDECIDED", many - 1: "UNDECIDED"}
    for count, status in {**counts, many: "FAIL"}.items():
        sure = dict(other.log_probs)
        for target in kinds[:count]:
            sure[target] = np.log(np.where(np.arange(VOCAB) == tokens[target], 0.9, 0.1 / VOCAB))
        answers = [*honest.answers[:-1], replace(other, log_probs=sure)]
        found = {one.rule: one for one in audit(replace(honest, answers=answers))}
        assert found["no validation inside"].status == status, count


def test_the_first_score_of_a_target_stands() -> None:
    record = Record(5)
    record.add(1, np.array([1.0, 2.0]), "a")
    record.add(2, np.array([9.0, 3.0]), "b")
    answer = record.answer()
    assert answer.nats[1:4].tolist() == [1.0, 2.0, 3.0] and np.isnan(answer.nats[[0, 4]]).all()
    assert answer.times.tolist() == [0, 1, 2, 1, 0] and answer.adapts


def test_distances_of_distributions() -> None:
    a = np.log(np.array([0.5, 0.5, 1e-300]))
    assert distributions_apart(a, np.log(np.array([0.5, 0.5, 1e-200]))) == 0.0
    assert distributions_apart(a, np.array([np.log(0.5), np.log(0.5), -np.inf])) == 0.0
    assert distributions_apart(a, np.array([np.log(0.5), np.nan, -np.inf])) == np.inf
    assert distributions_apart(a, a[:2]) == np.inf
    assert distributions_apart(a, a + 0.1) == pytest.approx(0.1)


@given(st.integers(16, 60), st.integers(4, 30), st.integers(0, 99), st.booleans())
def test_a_change_changes_each_token_and_makes_no_document(
    count: int, vocab_size: int, seed: int, keep_bos: bool
) -> None:
    tokens = (uniform(seed, 1, (count,)) * vocab_size).astype(np.int32)
    found = changed(tokens, vocab_size, 5, 12, seed, keep_bos=keep_bos)
    assert np.array_equal(found[:5], tokens[:5]) and np.array_equal(found[12:], tokens[12:])
    part, other = tokens[5:12], found[5:12]
    assert ((other == part) == ((part == BOS) & keep_bos)).all()
    assert (other[part != BOS] != BOS).all() and other.min() >= 0 and other.max() < vocab_size


@given(st.integers(16, 300), st.integers(1, 40), st.integers(0, 9))
def test_the_plan_asks_where_it_changes(count: int, flips: int, seed: int) -> None:
    tokens = np.resize(TEXT, count)
    plays = plan(tokens, VOCAB, flips=flips, asks=5, seed=seed)
    for play in plays[2:-1]:
        assert 0 < play.same < count and play.told
        if play.kind == "cut":
            assert np.array_equal(play.tokens, tokens[: play.same + 1])
        elif play.kind == "target":
            assert np.flatnonzero(play.tokens != tokens).tolist() == [play.same]
        elif play.kind == "future":
            assert np.array_equal(play.tokens[: play.same + 1], tokens[: play.same + 1])
        else:
            assert np.array_equal(play.tokens[play.same :], tokens[play.same :])
    assert {p.same for p in plays if p.kind == "future"} <= set(plays[0].ask)


def test_places_are_spread() -> None:
    assert spread(1, 101, 10, 0) != spread(1, 101, 10, 1)
    for seed in range(5):
        assert [(place - 1) // 10 for place in spread(1, 101, 10, seed)] == list(range(10))


def test_a_text_that_shows_nothing_is_refused() -> None:
    for tokens, words in ((TEXT[:9], "9 tokens to audit on"), (TEXT + 9, "in a vocabulary of 40")):
        with pytest.raises(ValueError, match=words):
            plan(tokens, VOCAB)
