"""Bytes of a Python file as text and as a tree, with bounds on what parsing them may cost."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

MAX_CODE = 500_000  # characters beside long literals: a tree has up to a kilobyte for each
PAYLOAD = 200  # bytes of a literal that may hold something packed
_RUN = re.compile(r"[^\"'\\\n]{4096,}")
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.M)
_COOKIES = {"utf8": "utf-8", "utf8sig": "utf-8", "ascii": "ascii", "latin1": "latin-1"}
_COOKIES |= {"iso88591": "latin-1", "cp1252": "cp1252", "windows1252": "cp1252"}


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A tree, and the long literals that stand in it as marks."""

    tree: ast.Module
    literals: dict[str, str]
    code: int  # characters that were parsed
    own: int  # of these, bytes beside literals that may be payloads


def text_of(data: bytes) -> str:
    """The text of a Python file, as the line that declares its encoding says."""
    head = b"\n".join(data[:2000].split(b"\n", 2)[:2])
    found = _COOKIE.search(head)
    name = found.group(1).decode("ascii") if found else "utf-8"
    encoding = _COOKIES.get(name.lower().replace("-", "").replace("_", ""))
    if encoding is None:
        raise ValueError(f"it declares the encoding {name:.30}, which is not read")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not {encoding} text: {error}") from error


def parse(text: str, room: int = MAX_CODE) -> Parsed:
    """The tree of a source text; ValueError with a sentence where it is none, or too much."""
    literals: dict[str, str] = {}
    if len(text) > room:
        text = _RUN.sub(lambda run: _set_apart(run.group(), literals), text)
    if len(text) > room:
        raise ValueError(
            f"{len(text):,} characters of code beside its long literals, more than {room:,}"
        )
    try:
        with warnings.catch_warnings():  # a stranger's odd escapes are not ours to tell
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        if literals:  # what was set apart was no literal but code
            raise ValueError(f"a script of more than {room:,} characters of code") from None
        raise ValueError(f"not Python {_version()}: line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        reason = str(error) or "nested too deeply"
        raise ValueError(f"not to be parsed: {reason:.100}") from None
    return Parsed(tree=tree, literals=literals, code=len(text), own=_own_bytes(tree, text))


def parse_start(data: bytes, room: int = MAX_CODE) -> tuple[str, Parsed]:
    """Text and tree; where bytes that are no text follow the script, those of the script."""
    try:
        text = text_of(data)
        return text, parse(text, room)
    except ValueError as error:
        start = _before_binary(data)
        if not start or not (b"__file__" in start or b"argv" in start):
            raise
        try:
            text = text_of(start)
            return text, parse(text, room)
        except ValueError:
            raise error from None


def _before_binary(data: bytes) -> bytes:
    """The lines before the first that no text has."""
    at = data.find(b"\0")
    start = data if at < 0 else data[:at]
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        start = start[: error.start]
    return b"" if len(start) == len(data) else start[: start.rfind(b"\n") + 1]


def _own_bytes(tree: ast.Module, text: str) -> int:
    """Bytes of a source beside its literals of PAYLOAD bytes and more."""
    starts, whole = [0], 0
    for line in text.split("\n"):
        whole += len(line.encode("utf-8", "surrogateescape")) + 1
        starts.append(whole)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            last = node.end_lineno or node.lineno
            end = starts[min(last, len(starts)) - 1] + (node.end_col_offset or 0)
            size = end - starts[min(node.lineno, len(starts)) - 1] - node.col_offset
            whole -= size if size >= PAYLOAD else 0
    return max(0, whole)


def _set_apart(literal: str, literals: dict[str, str]) -> str:
    """A mark that is no Python outside of quotes."""
    mark = f"\x01{len(literals)}\x02"
    literals[mark] = literal
    return mark


def _version() -> str:
    import sys

    return f"{sys.version_info.major}.{sys.version_info.minor}"
