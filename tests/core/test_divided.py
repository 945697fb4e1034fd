"""A block's rows divided among ranks: the same score, and each document's adapters on one rank."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from core.score.adaptation import Adapt
from core.score.adapted import require_unadapted, score_adapting
from core.score.adapting import Marks
from core.score.bpb import Scored
from core.score.divided import Divided
from core.score.protocols import ProtocolName
from core.score.scorers import Nats
from core.score.scoring import score
from core.score.windows import Rows
from tests.core.test_adapting import (
    LENGTHS,
    NAMES,
    PROTOCOLS,
    SPEC,
    Recorder,
    how,
    text,
    validation_of,
)


class Together:
    """What threads that stand for ranks gather in; one that fails ends the wait of all."""

    def __init__(self, world_size: int) -> None:
        self.rows: list[Nats] = [np.zeros(0, np.float32)] * world_size
        self.barrier = threading.Barrier(world_size, timeout=30)


class Rank:
    """One of them."""

    def __init__(self, rank: int, together: Together) -> None:
        self.rank, self.world_size = rank, len(together.rows)
        self._together = together

    def gather(self, rows: Nats) -> Nats:
        self._together.rows[self.rank] = rows
        self._together.barrier.wait()
        held = np.stack(self._together.rows)
        self._together.barrier.wait()
        return held


class Learns(Recorder):
    """Nats are told by target, by the steps of the row's adapters and by those of all weights."""

    def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
        depth = super().nats(x, y, marks)
        steps = self.learned[:, None] if len(self.learned) else np.zeros((len(y), 1))
        assert len(steps) == len(y)
        return (depth + y % 7 / 8 - steps / 64 - self.moved / 1024).astype(np.float32)


def plain(x: Rows, y: Rows) -> Nats:
    learner = Learns()
    return learner.nats(x, y)


def scored(name: Adapt, protocol: ProtocolName, ranks: int) -> tuple[list[Scored], list[Learns]]:
    """By each rank, and what its engine was told."""
    together, engines = Together(ranks), [Learns() for _ in range(ranks)]

    def one(rank: int) -> Scored:
        try:
            validation = validation_of(text(LENGTHS), protocol, how(name, 5))
            seat = Rank(rank, together)
            engine = engines[rank]
            return score_adapting(engine, plain, validation, SPEC, 4, "fp32", ranks=seat)
        except BaseException:
            together.barrier.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(one, range(ranks))), engines


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize(("name", "protocol"), [(n, PROTOCOLS[n][-1]) for n in NAMES])
def test_any_number_of_ranks_gives_the_same_score(
    name: Adapt, protocol: ProtocolName, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven ranks for five documents: two of them have none."""
    # the plain nats and these differ once something is learned; a warm-up step is none
    monkeypatch.setattr("core.score.adapted.warm_up", lambda *_: None)
    [alone], [engine] = scored(name, protocol, 1)
    found, engines = scored(name, protocol, ranks)
    assert found == [alone] * ranks
    unlearned = score(plain, validation_of(text(LENGTHS), protocol, None), SPEC.seq_len, 4)
    assert alone.nats < 0.999 * unlearned.nats, "something was learned"
    if how(name).per_document:
        taught = [sum(v for kind, v in one.taught if kind == "learn") for one in engines]
        whole = sum(v for kind, v in engine.taught if kind == "learn")
        assert sum(taught) == whole and max(taught) < whole
    if how(name).descends:
        told = [[v for kind, v in one.taught if kind == "descend"] for one in (engine, *engines)]
        for one in told[1:]:
            assert len(one) == len(told[0]) > 0
            for (pairs, rate), (others, other_rate) in zip(told[0], one, strict=True):
                assert np.array_equal(pairs, others) and rate == other_rate


def test_what_was_learned_is_kept_by_one_rank_alone() -> None:
    learner = Divided(Learns(), Rank(0, Together(2)))
    for ask in (learner.lasting, lambda: learner.go_on({})):
        with pytest.raises(ValueError, match="2 ranks and a model that learns: .* one rank alone"):
            ask()


def test_a_model_that_differs_on_one_rank_is_refused_by_all() -> None:
    """The check before an adaptive scoring sees the rows of every rank."""
    together = Together(2)

    class Odd(Learns):
        def nats(self, x: Rows, y: Rows, marks: Marks | None = None) -> Nats:
            return super().nats(x, y, marks) + np.float32(0.01)

    def one(rank: int) -> str:
        validation = validation_of(text(LENGTHS), "strided-docs", how("lora"))
        learner = Divided(Odd() if rank else Learns(), Rank(rank, together))
        with pytest.raises(ValueError, match="before it learns anything") as error:
            require_unadapted(learner, plain, validation, SPEC, 4, "fp32")
        return str(error.value)

    with ThreadPoolExecutor(2) as pool:
        assert len({*pool.map(one, range(2))}) == 1
