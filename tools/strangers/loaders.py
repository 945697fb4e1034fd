"""The code around a packed payload: whether it only decodes, and how it reads without its payload.

What is packed in a loader is shown unpacked elsewhere; any other statement of it is code like the
rest, and is shown.
"""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
import re
from collections.abc import Container
from typing import Any

from tools.strangers.script_source import PAYLOAD

_MODULES = {
    *("base64", "zlib", "lzma", "bz2", "gzip", "binascii", "brotli", "zstandard", "codecs"),
    *("linecache", "sys", "types", "io", "os", "json", "struct", "runpy", "tempfile", "pathlib"),
}
_CALLS = {  # by their last word
    *("exec", "eval", "compile", "bytes", "bytearray", "str", "len", "dict", "list", "zip"),
    *("b64decode", "b85decode", "a85decode", "b32decode", "b16decode", "decodebytes"),
    *("urlsafe_b64decode", "standard_b64decode", "unhexlify", "a2b_base64", "fromhex"),
    *("decompress", "decompressobj", "LZMADecompressor", "BZ2Decompressor", "flush", "decode"),
    *("encode", "splitlines", "split", "join", "strip", "replace", "removeprefix", "BytesIO"),
    *("ModuleType", "globals", "items", "values", "ZstdDecompressor", "Decompressor"),
}
_STATEMENTS = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr, ast.If, ast.For, ast.Pass)
_BUILTINS = frozenset(dir(builtins))
_MARK = re.compile("\x01\\d+\x02")  # of a literal that was set apart
_WORD = re.compile(r"[\w<>.#@:,+/-]{0,32}")
_KEPT_IN = {"linecache.cache", "sys.modules"}


def loader_of(tree: ast.Module, literals: dict[str, str], decoded: Container[object]) -> str:
    """The source of a loader with its literals as marks; nothing where it only decodes, and of one
    that also sets names for what it runs, those.

    A literal of `decoded` is shown unpacked; of another the mark tells its hash.
    """
    short = _Short(literals, decoded)
    used = {x.id for x in ast.walk(tree) if isinstance(x, ast.Name) and _is_load(x)}
    sets = [one for one in tree.body if _sets(one) - used]
    rest = [one for one in tree.body if one not in sets]
    quiet = _only_decodes(tree.body, _imported(tree)) and all(map(short.tells_nothing, rest))
    shown = ast.Module(body=copy.deepcopy(sets if quiet else tree.body), type_ignores=[])
    if not shown.body:
        return ""
    shown = short.visit(shown)
    return ast.unparse(ast.fix_missing_locations(shown)) + "\n"


def shadowed(tree: ast.Module) -> str:
    """How a loader puts its own in the place of what decodes or runs; nothing where it does not."""
    taken = _BUILTINS | _imported(tree)
    absent = {
        id(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
    }  # of a library that is not there: a constant stands in for nothing
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names = [] if id(node) in absent else [node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names = [node.value.id] if isinstance(node.value, ast.Name) else []
        if odd := [name for name in names if name in taken and not name.startswith("__")]:
            return f"line {getattr(node, 'lineno', 0)} puts something else in the place of {odd[0]}"
    return ""


def _is_load(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def _sets(statement: ast.stmt) -> set[str]:
    """The names that a statement at the margin assigns."""
    if not isinstance(statement, ast.Assign):
        return set()
    names = (node for target in statement.targets for node in ast.walk(target))
    return {node.id for node in names if isinstance(node, ast.Name) and not _is_load(node)}


def _imported(tree: ast.Module) -> frozenset[str]:
    return frozenset(
        one.asname or one.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for one in node.names
    )


def _only_decodes(body: list[ast.stmt], imported: frozenset[str]) -> bool:
    return all(isinstance(one, _STATEMENTS) and _is_plain(one, imported) for one in body)


def _is_plain(statement: ast.stmt, imported: frozenset[str]) -> bool:
    """Nothing but imports of decoders, texts, and calls that decode or run what was decoded."""
    if isinstance(statement, ast.If):
        test = ast.unparse(statement.test) if len(ast.dump(statement.test)) < 500 else ""
        main = test.replace('"', "'") == "__name__ == '__main__'"
        return main and _only_decodes([*statement.body, *statement.orelse], imported)
    if isinstance(statement, ast.Import):
        return all(one.name in _MODULES for one in statement.names)
    if isinstance(statement, ast.ImportFrom):
        return statement.module in _MODULES and not statement.level
    return all(_decodes(node, imported) for node in ast.walk(statement))


def _decodes(node: ast.AST, imported: frozenset[str]) -> bool:
    if isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS):
        return False
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name == "__import__":
            told = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
            return len(told) == 1 and told[0] in _MODULES
        return name in _CALLS
    if isinstance(node, ast.Name):
        taken = node.id in _BUILTINS or node.id in imported
        return _is_load(node) or not taken or node.id.startswith("__")
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return isinstance(node, ast.Subscript) and ast.unparse(node.value) in _KEPT_IN
    return not isinstance(node, ast.Lambda | ast.Await | ast.Yield | ast.YieldFrom)


class _Short(ast.NodeTransformer):
    """Long literals as marks."""

    def __init__(self, literals: dict[str, str], decoded: Container[object]) -> None:
        self.literals, self.decoded = literals, decoded

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        value = self._whole(node.value)
        if not isinstance(value, str | bytes) or len(value) < PAYLOAD:
            return node
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        size = f"{len(value):,} {'bytes' if isinstance(value, bytes) else 'characters'}"
        if self._is_shown(value):
            return ast.Constant(f"<{size}, unpacked>")
        return ast.Constant(f"<{size}, SHA-256 {hashlib.sha256(raw).hexdigest()[:16]}>")

    def tells_nothing(self, statement: ast.stmt) -> bool:
        """Whether its texts are decoded, or words that could be no code."""
        texts = (one.value for one in ast.walk(statement) if isinstance(one, ast.Constant))
        return all(
            _WORD.fullmatch(text if isinstance(text, str) else text.decode("latin-1"))
            or self._is_shown(self._whole(text))
            for text in texts
            if isinstance(text, str | bytes)
        )

    def _whole(self, value: Any) -> Any:
        """A literal in the place of its mark."""
        if isinstance(value, str) and self.literals:
            return _MARK.sub(lambda mark: self.literals.get(mark[0], mark[0]), value)
        return value

    def _is_shown(self, value: str | bytes) -> bool:
        if value in self.decoded:
            return True
        if isinstance(value, bytes):
            return value.decode("latin-1") in self.decoded
        return any(value.encode(name, "replace") in self.decoded for name in ("latin-1", "utf-8"))
