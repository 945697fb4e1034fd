"""The machine of a pickle: bytes to take from, a stack, a memo; each bounded."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

Value = (
    Any  # None, bool, int, float, str, bytes, list, tuple, or one of tools.strangers.pickle_arrays
)

_MAX_LINE = 1 << 20
_MAX_NUMBER_BYTES = 256


class Mark:
    """Where a container's items start on the stack."""


MARK = Mark()


@dataclass(kw_only=True)
class Machine:
    """The stack, the memo and what of the pickle is left."""

    data: bytes
    at: int = 0
    stack: list[Value] = field(default_factory=list)
    memo: dict[int, Value] = field(default_factory=dict)
    result: Value = None
    done: bool = False
    copied: int = 0  # bytes that were made anew: a short pickle can ask for it again and again

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError(f"the pickle ends too early: {count:,} bytes wanted")
        self.at += count
        return piece

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        return self.raw_line().decode("utf-8", "backslashreplace")

    def raw_line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + _MAX_LINE)
        if end < 0:
            raise ValueError("the pickle has a line without an end")
        return self.take(end + 1 - self.at)[:-1]

    def pop(self) -> Value:
        if not self.stack:
            raise ValueError("the pickle takes from an empty stack")
        if (value := self.stack.pop()) is MARK:
            raise ValueError("the pickle takes a mark for a value")
        return value

    def top(self) -> Value:
        if not self.stack or self.stack[-1] is MARK:
            raise ValueError("the pickle changes what is not there")
        return self.stack[-1]

    def marked(self) -> list[Value]:
        """What lies above the last mark, taken off with it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise ValueError("the pickle closes what it did not open")

    def push(self, value: Value) -> None:
        self.stack.append(value)


def utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def latin(raw: bytes) -> str:
    return raw.decode("latin-1")


def long_number(raw: bytes) -> int:
    if len(raw) > _MAX_NUMBER_BYTES:
        raise ValueError(f"the pickle has a number of {len(raw):,} bytes")
    return int.from_bytes(raw, "little", signed=True)


def decimal(machine: Machine) -> None:
    text = machine.line().removesuffix("L")
    if len(text) > _MAX_NUMBER_BYTES:
        raise ValueError("the pickle has a number of too many digits")
    machine.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


def real(machine: Machine) -> None:
    machine.push(float(machine.line()[:_MAX_NUMBER_BYTES]))


def quoted(machine: Machine) -> None:
    machine.push(machine.line().strip("'\""))
