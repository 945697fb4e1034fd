"""Work in several processes: the results in order, failures at their place, nobody left behind."""

import multiprocessing
import time

import pytest

from core.data.workers import AHEAD, in_order


def make(factor):
    """Later items are done sooner; 13 fails, 17 dies."""

    def work(item):
        time.sleep(0.02 * (item % 3 == 0))
        if item == 13:
            raise ValueError(f"item {item} is unlucky")
        if item == 17:
            raise SystemExit
        return item * factor

    return work


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_items(workers):
    found = list(in_order(make, (10,), iter(range(12)), workers))
    assert found == [(i, 10 * i) for i in range(12)]
    assert list(in_order(make, (10,), [], workers)) == []
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_comes_at_its_place(workers):
    found = []
    with pytest.raises(ValueError, match="item 13 is unlucky"):
        for item, _ in in_order(make, (1,), iter(range(9, 17)), workers):
            found.append(item)
    assert found == [9, 10, 11, 12]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_items_raise_comes_behind_the_results_before_it(workers):
    def items():
        yield from range(5)
        raise ValueError("no sixth item")

    found = []
    with pytest.raises(ValueError, match="no sixth item"):
        for item, _ in in_order(make, (1,), items(), workers):
            found.append(item)
    assert found == [0, 1, 2, 3, 4]


def dead(factor):
    raise SystemExit


@pytest.mark.parametrize("start", [make, dead])
def test_a_process_that_dies_is_told(start):
    def items():
        yield from (1, 17, 3, 3, 17)
        time.sleep(0.5)  # both have died, one or both of them idle
        yield from range(1, 7)

    with pytest.raises(ChildProcessError, match=r"ended before .* fewer --workers"):
        list(in_order(start, (1,), items(), 2))
    assert not multiprocessing.active_children()


def test_no_more_is_read_than_a_few_items_ahead():
    read = []
    items = (read.append(i) or i for i in range(100))
    for told, _ in enumerate(in_order(make, (1,), (i * 3 % 13 for i in items), 2), 1):
        assert len(read) - told <= AHEAD * 2
    assert len(read) == 100


def test_there_is_at_least_one_worker():
    with pytest.raises(ValueError, match="workers 0 must be at least 1"):
        list(in_order(make, (1,), [], 0))
