"""What a script's expression may stand for when it is read and not run, and how it came about."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tools.strangers.bounded import Budget

Value = Any  # bytes, str, int, bool, None, tuple, list, dict of these, or one of the classes below

MAX_STEPS = 200_000  # expressions looked at: far more than any loader has
MAX_LAYERS_OF_ONE = 64  # encodings around each other
PIECE_BYTES = 64  # what an object costs beside its content


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Not to be told without running the script, and why."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Ref:
    """Something that is imported or built in, by its full name; never looked up."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Each:
    """One of these, depending on a key that only a running program knows."""

    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """A method of a value."""

    owner: Value
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Machine:
    """A decompressor object: what its `decompress` does is a function of the bytes."""

    function: str
    args: tuple[Value, ...]
    options: dict[str, Value]


@dataclass(kw_only=True, eq=False)
class File:
    """A file that the script reads or writes; `content` None: another one than its own."""

    path: Value
    content: bytes | None = None
    text: bool = False
    at: int = 0
    written: list[bytes] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class Function:
    """A function, lambda or class of the script, with the names it sees."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
    scope: Scope


@dataclass(kw_only=True, eq=False)
class Instance:
    """A class of the script or an object of it: what its body and its methods assign."""

    scope: Scope


class TooLong(Exception):
    """A script has been followed as far as one is followed."""


class Scope:
    """Names of a module, a function or a class, within those around it."""

    def __init__(self, around: Scope | None = None, names: dict[str, Value] | None = None) -> None:
        self.around = around
        self.names: dict[str, Value] = names or {}

    def get(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.around
        return None if name == "None" else Ref(name=name)

    def copy(self) -> Scope:
        """Names that may be bound anew, lists and dicts too, without touching these."""
        seen: dict[int, Value] = {}
        return Scope(self.around, {name: _copy(v, seen) for name, v in self.names.items()})


def _copy(value: Value, seen: dict[int, Value]) -> Value:
    if type(value) in (list, dict):
        if id(value) not in seen:
            seen[id(value)] = value.copy()
        return seen[id(value)]
    return value


@dataclass(frozen=True, kw_only=True)
class Step:
    """`result` came out of `source` by `method`."""

    method: str
    source: bytes | str
    result: bytes | str


class Work:
    """What reading a script has made so far, and what it may still do."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.steps = 0
        self.text_left = 20_000_000  # characters for base85 and its kin, decoded by slow loops
        self._made: dict[bytes | str, Step] = {}
        self._names: dict[bytes | str, str] = {}
        self.poisoned: set[str] = set()  # names of libraries that the script puts its own in

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise TooLong(f"it takes more than {MAX_STEPS:,} steps to read")

    def made(self, method: str, source: bytes | str, result: bytes | str) -> bytes | str:
        """`result`, with where it came from kept."""
        if result != source and result not in self._made:
            self._made[result] = Step(method=method, source=source, result=result)
        return result

    def call_it(self, value: Value, name: Value) -> None:
        """The script keeps `value` under this name."""
        if isinstance(value, bytes | str) and isinstance(name, str) and 0 < len(name) <= 200:
            self._names.setdefault(value, name)

    def is_made(self, value: bytes | str) -> bool:
        return value in self._made

    def chain(self, value: bytes | str) -> list[Step]:
        """The steps that led to `value`, the first one first."""
        steps: list[Step] = []
        while value in self._made and len(steps) < MAX_LAYERS_OF_ONE:
            steps.insert(0, self._made[value])
            value = steps[0].source
        return steps

    def name_of(self, value: bytes | str) -> str | None:
        """The key under which the script keeps `value`, or what it was made from."""
        origins = [value, *(step.source for step in reversed(self.chain(value)))]
        return next((self._names[origin] for origin in origins if origin in self._names), None)


def unknown_in(values: Iterator[Value]) -> Unknown | None:
    return next((value for value in values if isinstance(value, Unknown)), None)


def each(value: Value, function: Callable[[Value], Value]) -> Value:
    """The function of a value, or of each that it may be."""
    if not isinstance(value, Each):
        return function(value)
    return Each(values=tuple(function(one) for one in value.values))
