"""Ahead: the same values in any order of steps, the next one begun early, errors at their step."""

from __future__ import annotations

import threading

import pytest

from core.data.ahead import Ahead


def test_any_order_gives_what_the_function_gives() -> None:
    ahead = Ahead(lambda step: step * step)
    for step in (0, 1, 2, 7, 8, 3, 3, 4, 0):
        assert ahead.take(step) == step * step


def test_the_next_step_is_made_while_this_one_is_used() -> None:
    begun = [threading.Event() for _ in range(4)]
    ahead = Ahead(lambda step: begun[step].set() or step)
    assert ahead.take(0) == 0
    assert begun[1].wait(10), "begun before anybody asked for it"
    assert not begun[2].is_set(), "one step ahead, not two"


def test_an_error_waits_for_its_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2 is broken")
        return step

    ahead = Ahead(make)
    assert [ahead.take(0), ahead.take(1)] == [0, 1]
    with pytest.raises(ValueError, match="step 2 is broken"):
        ahead.take(2)
    assert ahead.take(3) == 3
