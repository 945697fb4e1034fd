"""A recipe's settings put where the code asks for them, and the branches that they rule out gone.

Types are read from the annotations: a parameter annotated ModelSpec, or an attribute that __init__
sets from one, is the recipe's arch in a script that has one recipe. What a script may still be told
when it starts - seed, paths, schedule - is left in the code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from core.arch.plan import Visit, forward_plan
from core.train.recipe import Recipe

SECTIONS = (
    *("Recipe", "ModelSpec", "Phase", "Pair"),
    *("Optim", "Schedule", "Data", "Quant", "Score"),
)
KNOWN = {"Recipe": ("precision", "compile")}  # of these kinds only so much is settled
SCALARS = (bool, int, float, str, type(None))
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
Scope = dict[str, str]  # variable: kind


@dataclass(frozen=True)
class Common:
    """What every visit of the plan has in common."""

    visits: tuple[Visit, ...]

    def __getattr__(self, name: str) -> Any:
        found = {getattr(visit, name) for visit in self.visits}
        if len(found) > 1:
            raise AttributeError(name)
        return found.pop()


def values_of(recipe: Recipe) -> dict[str, Any]:
    """The one instance of each kind."""
    phases = range(len(recipe.arch.orders))
    visits = tuple(v for phase in phases for v in forward_plan(recipe.arch, phase))
    return {
        "Recipe": recipe,
        "ModelSpec": recipe.arch,
        "Optim": recipe.optim,
        "Quant": recipe.quant,
        "Visit": Common(visits),
    }


class Fold(ast.NodeTransformer):
    """Over a module with its annotations."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.scope: Scope = {}
        self.own: Scope = {}  # attributes of the class at hand

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """A recipe that was accepted before it was bundled is not checked once more."""
        if node.name in (*SECTIONS, "Grid"):
            node.body = [m for m in node.body if getattr(m, "name", "") != "__post_init__"]
        outer, self.own = self.own, self._attributes(node)
        self.generic_visit(node)
        self.own = outer
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        outer = self.scope
        self.scope = {**outer, **self._arguments(node)}
        node.body = self._body(node.body)
        self.scope = outer
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        """A loop's variable of the name `visit` is a visit of the plan."""
        outer = self.scope
        if isinstance(node.target, ast.Name) and node.target.id == "visit":
            self.scope = {**outer, "visit": "Visit"}
        node.iter = self.visit(node.iter)
        node.body = self._body(node.body)
        self.scope = outer
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        node.value = self.visit(node.value)
        for target, value in _pairs(node):
            kind = self._kind(value)
            if kind is not None:
                self.scope = {**self.scope, target: kind}
            elif target in self.scope:
                self.scope = {name: k for name, k in self.scope.items() if name != target}
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        kind = self._kind(node.value)
        node.value = self.visit(node.value)
        if kind is None or not isinstance(node.ctx, ast.Load):
            return node
        if node.attr not in KNOWN.get(kind, (node.attr,)):
            return node
        value = getattr(self.values[kind], node.attr, ...)
        plain = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, SCALARS) for part in plain):
            return node
        return _constant(value)

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            return self._body(node.body if node.test.value else node.orelse)
        node.body, node.orelse = self._body(node.body), self._body(node.orelse, empty=True)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            chosen: ast.expr = self.visit(node.body if node.test.value else node.orelse)
            return chosen
        self.generic_visit(node)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """`a and b`: a constant that decides ends it; one that does not is left out."""
        decides, parts = isinstance(node.op, ast.Or), list[ast.expr]()
        for value in node.values:
            part = self.visit(value)
            last = value is node.values[-1]
            if not isinstance(part, ast.Constant) or last or bool(part.value) == decides:
                parts.append(part)
            if isinstance(part, ast.Constant) and bool(part.value) == decides:
                break
        node.values = parts
        return node if len(parts) > 1 else parts[0]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) > 1 or not all(_is_plain(n) for n in (node.left, *node.comparators)):
            return node
        left, right = ast.literal_eval(node.left), ast.literal_eval(node.comparators[0])
        return ast.Constant(COMPARE[type(node.ops[0])](left, right))

    def _body(self, statements: list[ast.stmt], empty: bool = False) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for statement in statements:
            made = self.visit(statement)
            done += made if isinstance(made, list) else [made]
            if isinstance(done[-1] if done else None, ast.Return | ast.Raise):
                break
        return done or ([] if empty else [ast.Pass()])

    def _kind(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.scope.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self.own.get(node.attr)
        kind = self._kind(node.value)
        held = getattr(self.values[kind], node.attr, None) if kind else None
        return next((name for name, value in self.values.items() if value is held), None)

    def _arguments(self, node: ast.FunctionDef) -> Scope:
        found = {}
        for argument in (*node.args.args, *node.args.kwonlyargs):
            kind = argument.annotation
            if isinstance(kind, ast.Name) and kind.id in self.values:
                found[argument.arg] = kind.id
        return found

    def _attributes(self, node: ast.ClassDef) -> Scope:
        """self.x = spec in __init__, spec a parameter of a known kind."""
        starts = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
        found: Scope = {}
        for start in starts:
            arguments = self._arguments(start)
            for part in ast.walk(start):
                if isinstance(part, ast.Assign) and isinstance(part.value, ast.Name):
                    target, kind = part.targets[0], arguments.get(part.value.id)
                    if isinstance(target, ast.Attribute) and kind is not None:
                        found[target.attr] = kind
        return found


def without_registries(tree: ast.Module) -> ast.Module:
    """Top-level dicts that are only asked for constant keys give their values where it is asked."""
    tables: dict[str, dict[Any, ast.expr]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            keys = [getattr(key, "value", ...) for key in node.value.keys]
            target = node.targets[0]
            assert isinstance(target, ast.Name)
            tables[target.id] = dict(zip(keys, node.value.values, strict=True))
    asked = [n for n in ast.walk(tree) if isinstance(n, ast.Subscript) and _asks(n, tables)]
    fixed = {id(n.value) for n in asked}
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and _loads(n)]
    open_ = {n.id for n in names if id(n) not in fixed}
    looked = _Looked({name: table for name, table in tables.items() if name not in open_})
    done: ast.Module = looked.visit(tree)
    return done


def only_used(tree: ast.Module, kept: Collection[str]) -> ast.Module:
    """Without top-level definitions that nothing names any more, but for those that are kept."""
    while True:
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _loads(n)}
        body = [node for node in tree.body if not _is_idle(node, names.union(kept))]
        if len(body) == len(tree.body):
            return tree
        tree.body = body


class _Looked(ast.NodeTransformer):
    def __init__(self, tables: Mapping[str, Mapping[Any, ast.expr]]) -> None:
        self.tables = tables

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if _asks(node, self.tables):
            assert isinstance(node.value, ast.Name) and isinstance(node.slice, ast.Constant)
            return self.tables[node.value.id][node.slice.value]
        return node


def _asks(node: ast.Subscript, tables: Mapping[str, Mapping[Any, ast.expr]]) -> bool:
    if not isinstance(node.value, ast.Name):
        return False
    table = tables.get(node.value.id, {})
    return isinstance(node.slice, ast.Constant) and node.slice.value in table


def _is_idle(node: ast.stmt, names: set[str]) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name not in names
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id not in names
    if isinstance(node, ast.Import | ast.ImportFrom):
        return (node.names[0].asname or node.names[0].name.split(".")[0]) not in names
    return False


def _pairs(node: ast.Assign) -> list[tuple[str, ast.expr]]:
    """Variables with what they are set to."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        return [(t.id, v) for t, v in pairs if isinstance(t, ast.Name)]
    return [(target.id, value)] if isinstance(target, ast.Name) else []


def _constant(value: Any) -> ast.expr:
    if isinstance(value, tuple):
        return ast.Tuple([ast.Constant(part) for part in value], ast.Load())
    return ast.Constant(value)


def _is_plain(node: ast.expr) -> bool:
    parts = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    return all(isinstance(part, ast.Constant) for part in parts)


def _loads(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)
