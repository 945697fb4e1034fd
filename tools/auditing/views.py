"""What some file holds, as bytes and as numbers: compressions taken off, literals decoded, not run.

Nothing is executed or unpickled; all that is unpacked is paid for out of one budget.
"""

from __future__ import annotations

import ast
import base64
import binascii
import re
from collections.abc import Callable, Iterator

import numpy as np

from core.artifact.container import read
from tools.auditing.copies import Numbers
from tools.strangers.bounded import Budget, OverBudget, Zip, method_of
from tools.strangers.packed import unpack_script
from tools.strangers.script_source import PAYLOAD, parse

LIMIT_BYTES = 1 << 28  # of all that is unpacked of one file
DEEPEST = 4
LEAST = 16  # tokens that are looked for
LIST = 64, 1 << 20  # digits and what stands between them, of a list that is looked at at once
_NUMBER = re.compile(rb"\d{1,6}")
_LIST = re.compile(rb"[\d\s,;\[\]()]{%d,%d}" % LIST)
_DECODERS: tuple[Callable[[bytes], bytes], ...] = (
    base64.b85decode,
    base64.a85decode,
    lambda text: base64.b64decode(text, validate=True),
    lambda text: bytes.fromhex(text.decode("ascii")),
)


def contents(name: str, data: bytes, unread: list[str]) -> Iterator[tuple[str, bytes]]:
    """The file itself, and whatever it holds packed: how it is called, and its bytes.

    unread: hears why something was not read to its end.
    """
    budget = Budget(LIMIT_BYTES)
    try:
        yield from _inside(name, data, budget, 0)
    except OverBudget as error:
        unread.append(f"not read to its end: {error}")


def tokens_of(data: bytes, vocab_size: int) -> Iterator[tuple[str, Numbers]]:
    """The bytes as tokens: numbers of two, four and eight bytes at any place, lists of digits."""
    for code in ("<u2", ">u2", "<u4", "<u8"):
        width = np.dtype(code).itemsize
        for first in range(min(width, len(data))):
            numbers = np.frombuffer(data, code, (len(data) - first) // width, first)
            if np.count_nonzero(numbers < vocab_size) >= LEAST:
                yield f"numbers of {width} bytes", numbers
    for run in _LIST.finditer(data):
        listed = [int(digits) for digits in _NUMBER.findall(run.group())]
        yield "a list of numbers", np.array(listed, np.uint32)


def _inside(name: str, data: bytes, budget: Budget, depth: int) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if depth == DEEPEST:
        return
    for inner, held in _parts(name, data, budget):
        yield from _inside(inner, held, budget, depth + 1)


def _parts(name: str, data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """What lies one wrapping deeper; nothing where it is damaged."""
    try:
        if data.startswith(b"GOLF"):
            tensors = read(data).tensors
            yield from ((f"{name}: {one.name}", one.values.tobytes()) for one in tensors)
        elif data.startswith(b"PK\x03\x04"):
            packed = Zip(data, budget)
            yield from ((f"{name}: {one.name}", packed.read(one)) for one in packed.entries)
        elif method := method_of(data):
            yield f"{name}, unpacked", budget.expand(method, data)
        elif name.endswith(".py"):
            yield from _of_script(name, data, budget)
    except OverBudget:
        raise
    except ValueError:
        return


def _of_script(name: str, data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """The sources that a script runs, and its long literals, decoded."""
    found = unpack_script(data, name, budget)
    for module in found.modules:
        source = module.source.encode("utf-8", "surrogateescape")
        if source != data:
            yield f"{name}: {module.name}", source
        parsed = parse(module.source)
        for text in parsed.literals.values():
            yield from _of_literal(f"{name}: a literal", text)
        for node in ast.walk(parsed.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                yield from _of_literal(f"{name}, line {node.lineno}", node.value)


def _of_literal(name: str, value: str | bytes) -> Iterator[tuple[str, bytes]]:
    if len(value) < PAYLOAD:
        return
    if isinstance(value, bytes):
        yield name, value
    text = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    for decode in _DECODERS:
        try:
            yield name, decode(text)
        except (ValueError, TypeError, binascii.Error):
            continue
