"""Functions, classes and names of a script while it is read: arguments bound, nothing called."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tools.strangers.script_calls import Calls
from tools.strangers.script_values import (
    MAX_LAYERS_OF_ONE,
    Each,
    File,
    Function,
    Instance,
    Ref,
    Scope,
    Unknown,
    Value,
)

MAX_ROUNDS = 1024  # of a loop over a list that the script spells out
_MAX_CALLS_INSIDE = 12
_MAX_CALLS = 4  # of one function with nothing that could be a payload
_PARAMETER = Unknown(why="it comes in as an argument of a function")


class Functions(Calls):
    """Expressions within functions of the script itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._inside = 0
        self._calls: Counter[ast.AST] = Counter()

    def body(self, statements: Iterable[ast.stmt], scope: Scope) -> Value:
        """What a `return` among them gives, else None."""
        raise NotImplementedError

    def enter(self, function: Function, args: list[Value], options: dict[str, Value]) -> Value:
        if self._inside >= _MAX_CALLS_INSIDE:
            return Unknown(why="its functions call each other too deeply")
        if not any(_is_payload(one) for one in (*args, *options.values())):
            self._calls[function.node] += 1
            if self._calls[function.node] > _MAX_CALLS:
                return Unknown(why=f"line {function.node.lineno} is called too often to follow")
        self._inside += 1
        try:
            if isinstance(function.node, ast.ClassDef):
                return self._construct(function, args, options)
            scope = self._called(function.node, Scope(function.scope), args, options)
            if isinstance(function.node, ast.Lambda):
                return self.value(function.node.body, scope)
            return self.body(function.node.body, scope)
        finally:
            self._inside -= 1

    def _called(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
        scope: Scope,
        args: Sequence[Value],
        options: dict[str, Value],
    ) -> Scope:
        """The names of a function: its arguments, its defaults, all else Unknown."""
        words = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [word.arg for word in words]
        if names and isinstance(scope.around, Scope) and "__self__" in scope.around.names:
            args = [Instance(scope=scope.around), *args]
        positional = len(node.args.posonlyargs) + len(node.args.args)
        defaults = dict(zip(names[:positional][::-1], node.args.defaults[::-1], strict=False))
        for extra in (node.args.vararg, node.args.kwarg):
            names += [extra.arg] if extra else []
        scope.names |= {
            name: self.value(defaults[name], scope) if name in defaults and args else _PARAMETER
            for name in names
        }
        scope.names |= dict(zip(names[:positional], args, strict=False))
        scope.names |= {name: value for name, value in options.items() if name in names}
        return scope

    def _construct(self, made: Function, args: list[Value], options: dict[str, Value]) -> Value:
        start = made.scope.names.get("__init__")
        if args and isinstance(start, Function):
            self.enter(start, args, options)
        return Instance(scope=made.scope)

    def bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            self.work.call_it(value, target.id if isinstance(value, File) else None)
            scope.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            known = isinstance(value, list | tuple) and len(value) == len(target.elts)
            for at, one in enumerate(target.elts):
                self.bind(one, value[at] if known else unpacked(value), scope)
        elif isinstance(target, ast.Subscript):
            self._set_item(self.value(target.value, scope), self.value(target.slice, scope), value)
        elif isinstance(target, ast.Attribute):
            owner = self.value(target.value, scope)
            if isinstance(owner, Instance):
                _keep(owner.scope.names, target.attr, value)
            elif isinstance(owner, Ref):
                self.work.poisoned.add(f"{owner.name}.{target.attr}")

    def comprehension(self, node: ast.expr, scope: Scope) -> Value:
        """A dict or list made from one that the script spells out."""
        assert isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp)
        loop = node.generators[0]
        items = self.value(loop.iter, scope)
        items = list(items) if isinstance(items, dict | tuple) else items
        plain = len(node.generators) == 1 and not loop.ifs and isinstance(items, list)
        if not plain or len(items) > MAX_ROUNDS:
            return Unknown(why="it is made by a comprehension over what the script makes")
        made: dict[Any, Value] = {}
        inner = Scope(scope)
        for at, item in enumerate(items):
            self.bind(loop.target, item, inner)
            key = self.value(node.key, inner) if isinstance(node, ast.DictComp) else at
            made[key if isinstance(key, str | bytes | int) else ("?", at)] = self.value(
                node.value if isinstance(node, ast.DictComp) else node.elt, inner
            )
        return made if isinstance(node, ast.DictComp) else list(made.values())

    def _set_item(self, owner: Value, key: Value, value: Value) -> None:
        if isinstance(owner, dict):
            self.work.call_it(value, key)
            owner[key if isinstance(key, str | bytes | int) else ("?", len(owner))] = value
        elif isinstance(owner, list):
            owner[:] = [Unknown(why="an item of a list is changed")]


def _is_payload(value: Value) -> bool:
    return isinstance(value, Each) or (isinstance(value, bytes | str) and len(value) >= 16)


def _keep(names: dict[str, Value], name: str, value: Value) -> None:
    """An attribute: objects of one class share their names here, so it may be each of several."""
    before = names.get(name)
    known = before.values if isinstance(before, Each) else () if before is None else (before,)
    if isinstance(value, Unknown) and known:
        return  # a constructor read as if called with anything
    if all(value is not one for one in known) and len(known) < MAX_LAYERS_OF_ONE:
        names[name] = Each(values=(*known, value)) if known else value


def unpacked(value: Value) -> Value:
    """One of what a loop or an assignment takes apart."""
    if isinstance(value, list | tuple) and value:
        return Each(values=tuple(value[:MAX_LAYERS_OF_ONE]))
    return value if isinstance(value, Unknown) else _PARAMETER
