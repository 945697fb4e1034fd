"""Trees with other expressions in the place of names, attributes and calls."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from tools.bundling.constants import Constants, copied, is_known, is_pure
from tools.bundling.trees import bind, defaults_of, is_read, word_of
from tools.bundling.world import World


class Given(ast.NodeTransformer):
    """Puts constants where names are read."""

    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if is_read(node) and node.id in self.values:
            return copied(self.values[node.id])
        return node


class Replaced(ast.NodeTransformer):
    def __init__(self, instead: dict[int, ast.expr]) -> None:
        self.instead = instead

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if id(node) in self.instead:
            return self.instead[id(node)]
        self.generic_visit(node)
        return node


class Spread(ast.NodeTransformer):
    """`f(*rest)` with the parts of `rest`."""

    def __init__(self, name: str, parts: list[ast.expr]) -> None:
        self.name, self.parts = name, parts

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        args = list[ast.expr]()
        for part in node.args:
            spread = isinstance(part, ast.Starred) and word_of(part.value) == self.name
            args += self.parts if spread else [part]
        node.args = args
        return node


class Looked(ast.NodeTransformer):
    """`table[key]` and `table.get(key)` with the table itself, where that may decide it."""

    def __init__(self, name: str, table: ast.Dict) -> None:
        self.name, self.table = name, table

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if word_of(node.value) == self.name and is_known(node.slice) and is_read(node):
            node.value = copied(self.table)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        func = node.func
        if not (isinstance(func, ast.Attribute) and func.attr == "get"):
            return node
        if word_of(func.value) == self.name and all(map(is_known, self.table.values)):
            asked = ast.Attribute(copied(self.table), "get", ast.Load())
            done: ast.expr = Constants().visit(ast.Call(asked, node.args, []))
            return done
        return node


class Attributes(ast.NodeTransformer):
    def __init__(self, world: World, values: Mapping[str, ast.expr | None]) -> None:
        self.world, self.values = world, values

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        found = self.values.get(node.attr)
        if found is not None and is_read(node) and self.world.own(node) and is_pure(node.value):
            return copied(found)
        self.generic_visit(node)
        return node


class Answered(ast.NodeTransformer):
    def __init__(
        self, world: World, names: dict[str, ast.expr], methods: dict[str, ast.expr]
    ) -> None:
        self.world, self.names, self.methods = world, names, methods

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if not all(map(is_pure, (*node.args, *(k.value for k in node.keywords)))):
            return node
        found = None
        if isinstance(node.func, ast.Name):
            found = self.names.get(node.func.id) or self._worked_out(node, node.func.id)
        elif isinstance(node.func, ast.Attribute) and is_pure(node.func.value):
            found = self.methods.get(node.func.attr)
        return node if found is None else copied(found)

    def _worked_out(self, node: ast.Call, name: str) -> ast.expr | None:
        """What a function of one expression gives for constants."""
        function = self.world.functions.get(name)
        if function is None or len(function.body) > 1 or not any(map(is_known, node.args)):
            return None
        names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
        defaults = defaults_of(function.args)
        bound = bind(node, [(n, defaults.get(n)) for n in names])
        part = function.body[0]
        if bound is None or not isinstance(part, ast.Return) or part.value is None:
            return None
        given = {n: v for n, v in bound.items() if v is not None and is_known(v)}
        value = Constants().visit(Given(given).visit(copied(part.value)))
        return value if is_known(value) else None
