"""Statements of a script, read in order and not run: what would be executed, what stays open."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tools.strangers.script_functions import MAX_ROUNDS, Functions, unpacked
from tools.strangers.script_values import (
    Each,
    File,
    Function,
    Ref,
    Scope,
    Unknown,
    Value,
)

_GIVES_SOURCE = {"get_source", "get_data"}  # what an importer's methods hand to Python
_LIBRARIES = {
    "base64": ("b64decode", "b85decode", "a85decode", "b32decode", "decodebytes"),
    "zlib": ("decompress", "decompressobj"),
    "lzma": ("decompress", "FORMAT_RAW", "FORMAT_XZ", "FORMAT_ALONE", "FILTER_LZMA2"),
}


@dataclass(frozen=True, kw_only=True)
class Sink:
    """What the script would run, as bytes or text, or why that cannot be told."""

    content: bytes | str | None
    line: int
    how: str
    why: str = ""
    name: str | None = None


class Statements(Functions):
    """Reads a module; `sinks` is what it would run."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sinks: list[Sink] = []
        self._functions: list[Function] = []

    def module(self, tree: ast.Module, scope: Scope) -> None:
        """The module itself, then its functions as if called with anything."""
        scope.names["__doc__"] = ast.get_docstring(tree, clean=False)
        self.body(tree.body, scope)
        at = 0
        while at < len(self._functions):
            self.enter(self._functions[at], [], {})
            at += 1
        for file in self.files:
            name = file.path if isinstance(file.path, str) else None
            if file.written and (name is None or name.endswith((".py", ".zip", ".pyz"))):
                self.sink(file, 0, "a file that is written")

    def sink(self, value: Value, line: int, how: str) -> None:
        if isinstance(value, Each):
            for one in value.values:
                self.sink(one, line, how)
            return
        name = None
        if isinstance(value, File):
            name = value.path if isinstance(value.path, str) else None
            value = self._written(value)
        if isinstance(value, bytes | str):
            name = self.work.name_of(value) or name
            self.sinks.append(Sink(content=value, line=line, how=how, name=name))
            return
        why = value.why if isinstance(value, Unknown) else "it is made as the script runs"
        self.sinks.append(Sink(content=None, line=line, how=how, why=why))

    def _written(self, file: File) -> Value:
        if not file.written:
            named = repr(file.path) if isinstance(file.path, str) else "unknown"
            return Unknown(why=f"it is another file, {named:.80}")
        whole = b"".join(file.written)
        if len(file.written) > 1:
            self.work.budget.spend(len(whole))
        return whole

    def body(self, statements: Iterable[ast.stmt], scope: Scope) -> Value:
        """What a `return` among them gives, else None."""
        for node in statements:
            self.work.step()
            reader = _STATEMENTS.get(type(node), Statements._other)
            if (given := reader(self, node, scope)) is not None:
                return given
        return None

    def _assign(self, node: ast.Assign | ast.AnnAssign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            self.bind(target, value, scope)

    def _add(self, node: ast.AugAssign, scope: Scope) -> None:
        now = self.operate(node.op, self.value(node.target, scope), self.value(node.value, scope))
        self.bind(node.target, now, scope)

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                name = alias.asname or alias.name.split(".")[0]
                scope.names[name] = Ref(name=alias.name if alias.asname else name)
            elif alias.name == "*":
                every = _LIBRARIES.get(node.module or "", ())
                scope.names |= {
                    one: self.attribute(Ref(name=node.module or ""), one) for one in every
                }
            else:
                found = self.attribute(Ref(name=node.module or ""), alias.name)
                scope.names[alias.asname or alias.name] = found

    def _if(self, node: ast.If, scope: Scope) -> Value:
        test = self.value(node.test, scope)
        if isinstance(test, bool):
            return self.body(node.body if test else node.orelse, scope)
        other = scope.copy()
        given = self.body(node.body, scope), self.body(node.orelse, other)
        self._merge(scope, other, node.lineno)
        if given[0] is None or given[1] is None:
            return given[0] if given[1] is None else given[1]
        return given[0] if given[0] == given[1] else Each(values=given)

    def _merge(self, scope: Scope, other: Scope, line: int) -> None:
        for name, value in other.names.items():
            mine = scope.names.setdefault(name, value)
            if mine is not value and not _equal(mine, value):
                scope.names[name] = Unknown(why=f"it depends on the condition in line {line}")

    def _try(self, node: ast.Try, scope: Scope) -> Value:
        given = self.body(node.body, scope)
        for handler in node.handlers:
            other = scope.copy()
            self.body(handler.body, other)
            scope.names = {**other.names, **scope.names}
        after = self.body([*node.orelse, *node.finalbody], scope)
        return given if given is not None else after

    def _for(self, node: ast.For | ast.AsyncFor, scope: Scope) -> Value:
        items = self.value(node.iter, scope)
        items = list(items) if isinstance(items, dict | tuple) else items
        if not isinstance(items, list) or len(items) > MAX_ROUNDS or _jumps(node):
            return self._loop(node, scope, items)
        for item in list(items):
            self.bind(node.target, item, scope)
            if (given := self.body(node.body, scope)) is not None:
                return given
        return self.body(node.orelse, scope)

    def _while(self, node: ast.While, scope: Scope) -> Value:
        self.value(node.test, scope)
        return self._loop(node, scope, None)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, scope: Scope, items: Value) -> Value:
        """Nobody knows how often: what it changes is Unknown before and behind."""
        changed = {
            one.id
            for one in ast.walk(ast.Module(node.body, []))
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
        }
        unknown = Unknown(why=f"it is changed by the loop in line {node.lineno}")
        scope.names |= dict.fromkeys(changed, unknown)
        if not isinstance(node, ast.While):
            self.bind(node.target, unpacked(items), scope)
        given = self.body([*node.body, *node.orelse], scope)
        scope.names |= dict.fromkeys(changed, unknown)
        return given

    def _with(self, node: ast.With | ast.AsyncWith, scope: Scope) -> Value:
        for one in node.items:
            value = self.value(one.context_expr, scope)
            if one.optional_vars is not None:
                self.bind(one.optional_vars, value, scope)
        return self.body(node.body, scope)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        made = Function(node=node, scope=scope)
        scope.names[node.name] = made
        if all(made.node is not known.node for known in self._functions):
            self._functions.append(made)

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        inner = Scope(scope, {"__self__": True})
        self.body(node.body, inner)
        scope.names[node.name] = Function(node=node, scope=inner)
        for method in _GIVES_SOURCE & set(inner.names):
            if isinstance(found := inner.names[method], Function):
                self.sink(self.enter(found, [], {}), found.node.lineno, method)

    def _return(self, node: ast.Return, scope: Scope) -> Value:
        return self.value(node.value, scope)

    def _other(self, node: ast.stmt, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child, scope)


def _jumps(node: ast.For | ast.AsyncFor) -> bool:
    return any(isinstance(one, ast.Break | ast.Continue) for one in ast.walk(node))


def _equal(one: Value, other: Value) -> bool:
    plain = (str, bytes, int, type(None), Ref, Unknown)
    return isinstance(one, plain) and type(one) is type(other) and one == other


_STATEMENTS: dict[type, Callable[..., Value]] = {
    ast.Assign: Statements._assign,
    ast.AnnAssign: Statements._assign,
    ast.AugAssign: Statements._add,
    ast.Import: Statements._import,
    ast.ImportFrom: Statements._import,
    ast.If: Statements._if,
    ast.Try: Statements._try,
    ast.For: Statements._for,
    ast.AsyncFor: Statements._for,
    ast.While: Statements._while,
    ast.With: Statements._with,
    ast.AsyncWith: Statements._with,
    ast.FunctionDef: Statements._define,
    ast.AsyncFunctionDef: Statements._define,
    ast.ClassDef: Statements._class,
    ast.Return: Statements._return,
}
