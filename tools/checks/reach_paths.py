"""Paths as a source spells them: how an expression begins, and whether that leaves the folder."""

from __future__ import annotations

import ast
import posixpath
import re
from dataclasses import dataclass

from tools.checks.reach_names import Names

MAX_DEPTH = 40  # of an expression
MAX_TEXT = 500  # characters of a path
# What every Linux has and no submission can hide anything in.
HARMLESS = re.compile(
    r"/(dev/(null|zero|stdin|stdout|stderr|u?random)|sys(/[\w.:-]+)*|usr/bin/env|bin/(ba)?sh|"
    r"proc/(cpuinfo|meminfo|loadavg|stat|version|self/(status|statm?|maps|cgroup|mountinfo)))"
)
_ABSOLUTE = re.compile(r"(/[\w.@+-]+){2,}/?|~|~[\w.-]*/.*|[A-Za-z]:\\.+")
_ABOVE = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_MAKES_PATHS = {
    *("Path", "PurePath", "PosixPath", "str", "fspath", "abspath", "realpath", "normpath"),
    *("expanduser", "expandvars", "join", "joinpath", "fsencode", "fsdecode", "encode", "decode"),
    *("resolve", "absolute", "with_suffix", "with_name", "format"),
}


@dataclass(frozen=True, kw_only=True)
class Head:
    """The text that an expression begins with; `whole` where that is all of it."""

    text: str = ""
    whole: bool = False


def head_of(node: ast.expr, names: Names, depth: int = 0) -> Head:
    """How the text or path of an expression begins, as far as the source tells it."""
    if depth > MAX_DEPTH:
        return Head()
    if id(node) not in names.heads:  # once each: names that name names would take for ever
        names.heads[id(node)] = Head()
        told = _head_of(node, names, depth)
        names.heads[id(node)] = Head(text=told.text[:MAX_TEXT], whole=told.whole)
    known: Head = names.heads[id(node)]
    return known


def _head_of(node: ast.expr, names: Names, depth: int) -> Head:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        raw = node.value
        return Head(text=raw if isinstance(raw, str) else raw.decode("latin-1"), whole=True)
    if isinstance(node, ast.JoinedStr):
        return _joined(node.values, names, depth)
    if isinstance(node, ast.FormattedValue):
        return head_of(node.value, names, depth + 1)
    if isinstance(node, ast.BinOp):
        return _operated(node, names, depth)
    if isinstance(node, ast.Name) and node.id in names.values:
        return head_of(names.values[node.id], names, depth + 1)
    if isinstance(node, ast.Attribute) and names.dotted(node) in ("os.sep", "os.path.sep"):
        return Head(text="/", whole=True)
    if isinstance(node, ast.Call):
        return _called(node, names, depth)
    return Head()


def outside(text: str, start: bool = True) -> bool:
    """Whether a text is a path that leaves the folder; `start` where nothing stands before it."""
    if start and HARMLESS.fullmatch(posixpath.normpath(text)):
        return False
    absolute = start and _ABSOLUTE.fullmatch(text)
    return bool(absolute or (_ABOVE.search(text) and " " not in text))


def outside_when_read(text: str, surely: bool) -> bool:
    """Whether what begins so leaves the folder where it is opened, and not only spelled out;
    `surely` where a call takes nothing but paths.
    """
    if len(text) < 2 or len(text) > 400 or "\n" in text or "\0" in text:
        return text == "~" and surely
    if HARMLESS.fullmatch(posixpath.normpath(text)):
        return False
    if surely and re.match(r"/+[^/\s]|~[\w.-]*/|[A-Za-z]:\\", text):
        return True
    return outside(text) or bool(surely and _ABOVE.search(text))


def tails(tree: ast.AST) -> set[int]:
    """The texts that stand behind something else in what they are part of."""
    behind: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            behind.update(id(one) for one in node.values[1:])
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            right = node.right.values[:1] if isinstance(node.right, ast.JoinedStr) else [node.right]
            behind.update(id(one) for one in right)
    return behind


def _joined(values: list[ast.expr], names: Names, depth: int) -> Head:
    text = ""
    for value in values:
        part = head_of(value, names, depth + 1)
        text = (text + part.text)[:MAX_TEXT]
        if not part.whole:
            return Head(text=text)
    return Head(text=text, whole=True)


def _operated(node: ast.BinOp, names: Names, depth: int) -> Head:
    left = head_of(node.left, names, depth + 1)
    if isinstance(node.op, ast.Mod):
        return Head(text=left.text.split("%")[0])
    if not isinstance(node.op, ast.Add | ast.Div):
        return Head()
    right = head_of(node.right, names, depth + 1)
    if isinstance(node.op, ast.Div) and right.text.startswith("/"):
        return right  # an absolute path leaves what stands before it
    if not left.whole:
        return left
    between = "/" if isinstance(node.op, ast.Div) else ""
    return Head(text=f"{left.text}{between}{right.text}", whole=right.whole)


def _called(node: ast.Call, names: Names, depth: int) -> Head:
    """A call that makes a path of its arguments, or of what it is a method of."""
    name = names.dotted(node.func)
    last = name.rsplit(".", 1)[-1]
    if name.endswith("Path.home"):
        return Head(text="~/")
    if last not in _MAKES_PATHS:
        return Head()
    method = isinstance(node.func, ast.Attribute) and not name.startswith(("os.", "pathlib."))
    if last == "join" and method:
        return Head()  # of a text: what is between, not what comes first
    if method:
        assert isinstance(node.func, ast.Attribute)
        first = head_of(node.func.value, names, depth + 1)
        if last == "format":
            return Head(text=first.text.split("{")[0])
        return first if first.text else _first(node, names, depth)
    return _first(node, names, depth)


def _first(node: ast.Call, names: Names, depth: int) -> Head:
    heads = [head_of(one, names, depth + 1) for one in node.args[:8]]
    later = [head for head in heads[1:] if head.text.startswith("/")]
    if later:
        return later[-1]
    if not heads:
        return Head()
    text = "/".join(head.text for head in heads if head.whole)
    return Head(text=text, whole=True) if all(x.whole for x in heads) else heads[0]
