"""The same work done by several processes, its results in order: nobody can tell how many."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3  # items a process, in work or done and waiting for their turn


def in_order(
    make: Callable[..., Callable[[Item], Result]],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    workers: int,
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in the order of items, where work = make(*arguments) in each process.

    `make` is a module's function (processes are spawned). What work raises is raised here when its
    turn comes; what `items` raises, behind the results of those before it. One worker: no process.
    """
    if workers < 1:
        raise ValueError(f"workers {workers} must be at least 1")
    if workers == 1:
        work = make(*arguments)
        for item in items:
            yield item, work(item)
        return
    with _started(make, arguments, workers) as connections:
        yield from _spread(iter(items), connections)


def _spread(items: Iterator[Any], idle: list[Connection]) -> Iterator[tuple[Any, Any]]:
    most = AHEAD * len(idle)
    busy: dict[Connection, int] = {}
    held: dict[int, Any] = {}  # items given out, by number
    done: dict[int, Any] = {}
    given = told = 0
    end: _End | None = None
    while True:
        while end is None and idle and given - told < most:
            item = _taken(items)
            if isinstance(item, _End):
                end = item
            else:
                held[given] = item
                busy[_asked(idle.pop(), item)] = given
                given += 1
        if told in done:
            yield held.pop(told), _result(done.pop(told))
            told += 1
        elif busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                done[busy.pop(connection)] = _received(connection)
                idle.append(connection)
        else:
            break
    if end is not None and end.failure is not None:
        raise end.failure


@dataclass(frozen=True)
class _End:
    """No more items, because there are none or because reading them failed."""

    failure: Exception | None


def _taken(items: Iterator[Any]) -> Any:
    try:
        return next(items)
    except StopIteration:
        return _End(None)
    except Exception as error:  # told behind what came before it
        return _End(error)


def _asked(connection: Connection, item: Any) -> Connection:
    with suppress(OSError):  # a process that is gone is noticed when it should answer
        connection.send(item)
    return connection


def _received(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return ChildProcessError(
            "a worker process ended before its work was done, as when memory runs out; "
            "run the same command again with fewer --workers"
        )


def _result(found: Any) -> Any:
    if isinstance(found, Exception):
        raise found
    return found


@contextmanager
def _started(
    make: Callable[..., Any], arguments: tuple[Any, ...], workers: int
) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    processes, connections = [], []
    try:
        for _ in range(workers):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            process.start()
            theirs.close()  # so that the process hears when this one is gone
            processes.append(process)
            connections.append(mine)
        yield list(connections)
    finally:
        for process in processes:
            process.terminate()
        for process, connection in zip(processes, connections, strict=True):
            process.join()
            connection.close()


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's affair
    work = make(*arguments)
    try:
        while True:
            item = connection.recv()
            try:
                result = work(item)
            except Exception as error:
                result = error
            connection.send(result)
    except (EOFError, OSError):
        return  # whoever asked is gone
