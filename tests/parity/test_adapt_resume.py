"""A scoring that learns, stopped on the way, ends in the same bits; it takes no other state."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.score.adaptation import Adapt
from core.score.adapted import adapted_windows, score_adapting
from core.score.adapting import Learned
from core.score.bpb import Scored, Tally
from core.score.resume import Task, load_state, save_state
from core.score.scoring import Validation, open_tally
from core.score.subsets import Subset
from tests.parity.cases import spec_of
from tests.parity.engines import ENGINES, engine
from tests.parity.test_adapt import ADAPTS, how, opened, validation_of

SPEC = spec_of("baseline")
BATCH, SIZE = 2, 230
TASK: Task = {"artifact": "a"}
Mark = tuple[Tally, Learned]
Sums = tuple[dict[str, Any], bytes]
# What stops a scoring, between and inside its chunks or batches of documents: calls of `nats`, of
# `learn` or of `descend` once the checks before a scoring are done.
CALLS: dict[Adapt, tuple[str, ...]] = {
    "sgd": ("nats", "descend"),
    "lora": ("nats", "learn"),
    "phased": ("nats", "learn", "descend"),
}


class Stop(Exception):
    """Something ends a scoring."""


def validation(adapt: Adapt) -> Validation:
    """Two documents side by side: batches that a phase follows, and one that leaves a warm A."""
    return validation_of(SPEC, how(adapt, 2), SIZE)


def tally_of(of: Validation) -> Tally:
    return open_tally(of, SPEC.seq_len, adapted_windows(of, SPEC.seq_len, BATCH))


def marked(tally: Tally, learned: Learned) -> Mark:
    """As it is now: the tally goes on."""
    return copy(tally).from_state(*tally.to_state()), learned


def scored(name: str, of: Validation, mark: Mark | None = None, **more: Any) -> Scored:
    """By a fresh model, from the start or from a mark."""
    model = opened(name, SPEC)
    learner = engine(name).adapt.Learner(model.model, of.adaptation)
    tally, learned = mark or (tally_of(of), None)
    given = learner, model.nats, of, SPEC, BATCH, "fp32", more.get("after"), tally
    return score_adapting(*given, keep=more.get("keep"), learned=learned)


@cache
def whole(name: str, adapt: Adapt) -> tuple[Scored, tuple[Sums, ...]]:
    """The score in one go, and the numbers and counter behind each block."""
    behind: list[Sums] = []
    found = scored(name, validation(adapt), after=partial(noted, behind))
    return found, tuple(behind)


def noted(behind: list[Sums], tally: Tally) -> None:
    behind.append(tally.to_state())


def through_a_file(path: Path, of: Validation, mark: Mark) -> Mark:
    save_state(path, TASK, mark[0], 1.0, mark[1])
    tally, _, learned = load_state(path, TASK, tally_of(of), len(of.stream))
    assert learned is not None
    return tally, learned


def all_marks(name: str, adapt: Adapt) -> list[Mark]:
    marks: list[Mark] = []
    scored(name, validation(adapt), keep=lambda *mark: marks.append(marked(*mark)))
    return marks


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("adapt", ADAPTS)
def test_from_each_place_it_goes_on_to_the_same_bits(
    adapt: Adapt, name: str, tmp_path: Path
) -> None:
    """Each sum behind each block that follows, and the counter of the last."""
    of, (found, behind) = validation(adapt), whole(name, adapt)
    marks = all_marks(name, adapt)
    assert len(marks) >= 3
    for mark in marks:
        again: list[Sums] = []
        resumed = through_a_file(tmp_path / "state", of, mark)
        done = resumed[0].targets
        after = partial(noted, again)
        assert 0 < done < found.tokens and scored(name, of, resumed, after=after) == found
        rest = [state for state in behind if state[0]["targets"] > done]
        assert again == rest, "no block twice, none left out"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("adapt", "call"), [(a, c) for a in ADAPTS for c in CALLS[a]])
def test_what_fails_inside_a_part_goes_on_behind_the_last_whole_one(
    adapt: Adapt, call: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, marks, adapts = validation(adapt), list[Mark](), engine(name).adapt
    real = getattr(adapts.Learner, call)

    def fails(self: Any, *args: Any) -> Any:
        """At the second one behind the second mark."""
        found, left[0] = real(self, *args), left[0] - (len(marks) == 2)
        if not left[0]:
            raise Stop
        return found

    left = [2]
    with monkeypatch.context() as patch:
        patch.setattr(adapts.Learner, call, fails)
        with pytest.raises(Stop):
            scored(name, of, keep=lambda *mark: marks.append(marked(*mark)))
    assert len(marks) == 2
    assert scored(name, of, marks[-1]) == whole(name, adapt)[0]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("adapt", ADAPTS)
def test_any_other_bit_is_refused(adapt: Adapt, name: str) -> None:
    """One of each kind of array that is kept; the scorer's place in its plan; a fresh scorer."""
    of, mark = validation(adapt), all_marks(name, adapt)[0]
    kinds = {array.split()[0]: array for array in mark[1].arrays}
    expected = {"sgd": {"weight", "speed"}, "lora": {"down"}}
    expected["phased"] = expected["sgd"] | expected["lora"]
    assert kinds.keys() == expected[adapt] | {"at"}
    for kind, array in kinds.items():
        other = mark[1].arrays[array].copy()
        other.view(np.int32).reshape(-1)[0] ^= 1
        changed = replace(mark[1], arrays={**mark[1].arrays, array: other})
        with pytest.raises(ValueError, match=r"is not the one that was left|none to go on from"):
            scored(name, of, (marked(*mark)[0], changed))
        less = {held: value for held, value in mark[1].arrays.items() if held != array}
        if kind != "at":
            with pytest.raises(ValueError, match=r"what was learned has for .* None, the model"):
                scored(name, of, (marked(*mark)[0], replace(mark[1], arrays=less)))
    model = opened(name, SPEC)
    learner = engine(name).adapt.Learner(model.model, of.adaptation)
    with pytest.raises(ValueError, match="cannot go on behind target"):
        score_adapting(learner, model.nats, of, SPEC, BATCH, "fp32", None, marked(*mark)[0])


@pytest.mark.parametrize("name", ENGINES)
def test_adapters_that_start_anew_need_no_array(name: str) -> None:
    adaptation = how("lora", 2, warm_a=False)
    of = validation_of(SPEC, adaptation, SIZE)
    marks: list[Mark] = []
    found = scored(name, of, keep=lambda *mark: marks.append(marked(*mark)))
    assert all(mark[1].arrays.keys() == {"at"} for mark in marks)
    assert scored(name, of, marks[1]) == found


def test_a_subset_goes_on_too() -> None:
    """Its windows' sums make its interval."""
    of = replace(validation("sgd"), subset=Subset(name="first-200", targets=200))
    marks: list[Mark] = []
    found = scored("torch", of, keep=lambda *mark: marks.append(marked(*mark)))
    assert found.interval is not None and scored("torch", of, marks[2]) == found
