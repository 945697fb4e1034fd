"""Expressions of a script, read and not run: constants, names, decoders; all else is Unknown."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from tools.strangers import script_decoders, script_methods
from tools.strangers.script_values import (
    PIECE_BYTES,
    Bound,
    Each,
    File,
    Function,
    Instance,
    Ref,
    Scope,
    Unknown,
    Value,
    Work,
    each,
    unknown_in,
)

_MAX_NUMBER = 1 << 62
OTHER = Unknown(why="it is made by an expression that only running the script works out")


class Expressions:
    """The value of an expression in a scope. What it would run is given to `self.sink`."""

    def __init__(self, work: Work, file: bytes, literals: dict[str, str]) -> None:
        self.work = work
        self.file = file  # what the script finds when it opens itself
        self.literals = literals  # long literals, kept apart from the parsed text
        self.files: list[File] = []
        self.by_path: dict[str, File] = {}

    def value(self, node: ast.AST | None, scope: Scope) -> Value:
        self.work.step()
        reader = _READERS.get(type(node))
        if reader is not None:
            return reader(self, node, scope)
        for child in ast.iter_child_nodes(node) if node is not None else ():
            if isinstance(child, ast.expr):
                self.value(child, scope)  # a call may hide in it
        return None if node is None else OTHER

    def sink(self, value: Value, line: int, how: str) -> None:
        """The script would run `value`."""
        raise NotImplementedError

    def enter(self, function: Function, args: list[Value], options: dict[str, Value]) -> Value:
        """What a function of the script gives."""
        raise NotImplementedError

    def comprehension(self, node: ast.expr, scope: Scope) -> Value:
        """A list or dict made by a loop within an expression."""
        raise NotImplementedError

    def _constant(self, node: ast.Constant, _scope: Scope) -> Value:
        if isinstance(node.value, str | bytes) and self.literals:
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            for mark, literal in self.literals.items():
                text = text.replace(mark, literal)
            return text if isinstance(node.value, str) else text.encode("latin-1", "replace")
        return node.value

    def _name(self, node: ast.Name, scope: Scope) -> Value:
        return scope.get(node.id)

    def _sequence(self, node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Value:
        items = [self.value(item, scope) for item in node.elts]
        if len(items) == 2:
            self.work.call_it(items[1], items[0])
        return tuple(items) if isinstance(node, ast.Tuple) else items

    def _dict(self, node: ast.Dict, scope: Scope) -> Value:
        found: dict[Any, Value] = {}
        for at, (key_node, value_node) in enumerate(zip(node.keys, node.values, strict=True)):
            key, value = self.value(key_node, scope), self.value(value_node, scope)
            if key_node is None and isinstance(value, dict):
                found |= value
                continue
            self.work.call_it(value, key)
            found[key if isinstance(key, str | bytes | int) else ("?", at)] = value
        return found

    def _plus(self, node: ast.BinOp, scope: Scope) -> Value:
        """Sums, from the left, without recursion: a payload may be a sum of many lines."""
        rest: list[ast.BinOp] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            rest.append(left)
            left = left.left
        total = self.value(left, scope)
        for term in reversed(rest):
            total = self.operate(term.op, total, self.value(term.right, scope))
        return total

    def operate(self, op: ast.operator, left: Value, right: Value) -> Value:
        if why := unknown_in(iter((left, right))):
            return why
        if isinstance(op, ast.Div):  # a folder and a name: the name tells
            return right if isinstance(right, str) else left
        numbers = type(left) is int and type(right) is int
        if (
            numbers
            and isinstance(op, ast.Add | ast.Sub)
            and max(abs(left), abs(right)) < _MAX_NUMBER
        ):
            return left + right if isinstance(op, ast.Add) else left - right
        if isinstance(op, ast.BitOr | ast.Add) and type(left) is type(right) is dict:
            return left | right
        if not isinstance(op, ast.Add) or type(left) is not type(right):
            return OTHER
        if isinstance(left, list | tuple):
            self.work.budget.spend(PIECE_BYTES * (len(left) + len(right)))
            return left + right
        if not isinstance(left, str | bytes):
            return OTHER
        self.work.budget.spend(len(left) + len(right))
        return self.work.made("joined", max(left, right, key=len), left + right)

    def _unary(self, node: ast.UnaryOp, scope: Scope) -> Value:
        value = self.value(node.operand, scope)
        return -value if isinstance(node.op, ast.USub) and type(value) is int else OTHER

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        return self.attribute(self.value(node.value, scope), node.attr)

    def attribute(self, owner: Value, name: str) -> Value:
        if isinstance(owner, Ref):
            full = f"{owner.name}.{name}".removeprefix("builtins.").removeprefix("__builtins__.")
            return script_decoders.CONSTANTS.get(full, Ref(name=full))
        if isinstance(owner, Instance):
            found = owner.scope.get(name)
            return Bound(owner=owner, name=name) if isinstance(found, Ref) else found
        if isinstance(owner, File) and name in ("name", "path"):
            return owner if owner.path is None else owner.path
        if isinstance(owner, Unknown):
            return owner
        if isinstance(owner, Function):
            return self.attribute(Instance(scope=owner.scope), name)
        return Bound(owner=owner, name=name)

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        owner = self.value(node.value, scope)
        if isinstance(node.slice, ast.Slice):
            ends = node.slice.lower, node.slice.upper, node.slice.step
            bounds = [self.value(end, scope) for end in ends]
            return each(owner, lambda one: self._slice(one, bounds))
        key = self.value(node.slice, scope)
        return each(owner, lambda one: script_methods.part(one, key))

    def _slice(self, owner: Value, bounds: list[Value]) -> Value:
        if why := unknown_in(iter((owner, *bounds))):
            return why
        if not isinstance(owner, str | bytes | list | tuple):
            return OTHER
        if not all(end is None or type(end) is int for end in bounds) or bounds[2] == 0:
            return OTHER
        piece: Value = owner[slice(*bounds)]
        self.work.budget.spend(len(piece))
        return self.work.made("slice", owner, piece) if isinstance(owner, str | bytes) else piece

    def _either(self, node: ast.IfExp | ast.BoolOp, scope: Scope) -> Value:
        nodes = (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values
        if isinstance(node, ast.IfExp):
            self.value(node.test, scope)
        values = tuple(self.value(one, scope) for one in nodes)
        return unknown_in(iter(values)) or Each(values=values)

    def _compare(self, node: ast.Compare, scope: Scope) -> Value:
        left, *rest = [self.value(one, scope) for one in (node.left, *node.comparators)]
        plain = len(rest) == 1 and all(isinstance(one, str | int) for one in (left, rest[0]))
        if plain and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            return (left == rest[0]) is isinstance(node.ops[0], ast.Eq)
        return OTHER

    def _lambda(self, node: ast.Lambda, scope: Scope) -> Value:
        return Function(node=node, scope=scope)

    def _named(self, node: ast.NamedExpr, scope: Scope) -> Value:
        scope.names[node.target.id] = value = self.value(node.value, scope)
        return value

    def _call(self, node: ast.Call, scope: Scope) -> Value:
        callee = self.value(node.func, scope)
        args: list[Value] = []
        for arg in node.args:
            star = isinstance(arg, ast.Starred)
            value = self.value(arg.value if isinstance(arg, ast.Starred) else arg, scope)
            args += value if star and isinstance(value, list | tuple) else [value]
        options = {word.arg or "**": self.value(word.value, scope) for word in node.keywords}
        return self.call(callee, args, options, node.lineno)

    def call(self, callee: Value, args: list[Value], options: dict[str, Value], line: int) -> Value:
        """What calling it gives; a call that runs text tells `sink`."""
        if isinstance(callee, Function):
            return self.enter(callee, args, options)
        if isinstance(callee, Bound):
            return script_methods.method(self.work, callee, args, options)
        if not isinstance(callee, Ref):
            return callee if isinstance(callee, Unknown) else OTHER
        if (special := self.special(callee.name, args, options, line)) is not NotImplemented:
            return special
        if why := unknown_in(iter([*args, *options.values()])):
            return why
        first = args[0] if args else None
        return each(
            first,
            lambda one: script_decoders.call(
                self.work, callee.name, [one, *args[1:]] if args else [], options
            ),
        )

    def special(self, name: str, args: list[Value], options: dict[str, Value], line: int) -> Value:
        """What a function does that is no decoder; NotImplemented if it is none of these."""
        raise NotImplementedError


_LOOPS = (ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)
_READERS: dict[type, Callable[..., Value]] = {
    ast.Constant: Expressions._constant,
    ast.Name: Expressions._name,
    ast.Tuple: Expressions._sequence,
    ast.List: Expressions._sequence,
    ast.Set: Expressions._sequence,
    ast.Dict: Expressions._dict,
    ast.BinOp: Expressions._plus,
    ast.UnaryOp: Expressions._unary,
    ast.Attribute: Expressions._attribute,
    ast.Subscript: Expressions._subscript,
    ast.IfExp: Expressions._either,
    ast.BoolOp: Expressions._either,
    ast.Compare: Expressions._compare,
    ast.Lambda: Expressions._lambda,
    ast.NamedExpr: Expressions._named,
    ast.Call: Expressions._call,
    **dict.fromkeys(_LOOPS, lambda self, node, scope: self.comprehension(node, scope)),
}
