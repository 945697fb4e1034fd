"""The part of a program that one entry reaches: modules without the definitions nobody names.

Read from the code, never run. What is left out is what no reached line mentions: top-level names by
the names in the code, methods by the attributes and strings in it. Both err on the side of keeping.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Definition = ast.FunctionDef | ast.ClassDef
TWINS = "tools.bundling.twins"
Settled = Callable[[ast.Module], ast.Module]
ALWAYS = {"forward"}  # methods that a framework calls


@dataclass
class Module:
    """One file: its statements, and what of them has been reached."""

    name: str
    tree: ast.Module
    binds: dict[str, ast.stmt] = field(default_factory=dict)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)  # imported: module, name
    kept: set[ast.AST] = field(default_factory=set)


class Shaker:
    """Follows names from the entry; `modules` holds what it found."""

    def __init__(
        self,
        root: Path,
        settled: Settled | None = None,
        kinds: Collection[str] = (),
        twins: Mapping[tuple[str, str], str] | None = None,
        words: bool = False,
    ) -> None:
        self.root = root
        self.words = words  # of errors, which stay
        self.kinds = kinds  # annotations that stay
        self.twins = twins or {}  # (module, name): what stands for it in TWINS
        self.settled = settled  # what is done to a module first, while it has its annotations
        self.modules: dict[str, Module] = {}
        self.attributes: set[str] = set()
        self._waiting: list[tuple[Module, ast.AST]] = []
        self._methods: list[tuple[Module, ast.FunctionDef]] = []

    def reach(self, module: str, name: str) -> None:
        """Keep a top-level name with all that it needs."""
        held = self._open(module)
        assert held is not None, module
        self._keep_name(held, name)
        self._run()

    def reach_all(self, module: str, tree: ast.Module) -> None:
        """Keep a module that is no file, all of it, with all that it needs."""
        held = self.modules[module] = Module(module, tree)
        for statement in tree.body:
            self._bind(held, statement)
        for statement in tree.body:
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                self._keep(held, statement)
        self._run()

    def sources(self) -> dict[str, ast.Module]:
        """What is left of every module, in the order of their names."""
        return {name: _left(held) for name, held in sorted(self.modules.items())}

    def _run(self) -> None:
        while self._waiting or self._wanted_methods():
            self._follow(*self._waiting.pop())

    def _with_twins(self, module: str, tree: ast.Module) -> ast.Module:
        """What has a twin is the twin, where it is imported and in its own module."""
        for at, own in enumerate(tree.body):
            if isinstance(own, Definition) and (module, own.name) in self.twins:
                tree.body[at] = _import_of(self.twins[module, own.name], own.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                twins = [a for a in node.names if (node.module, a.name) in self.twins]
                node.names = [alias for alias in node.names if alias not in twins]
                for alias in twins:
                    name = self.twins[node.module or "", alias.name]
                    tree.body.insert(0, _import_of(name, alias.asname or alias.name))
        tree.body = [p for p in tree.body if not isinstance(p, ast.ImportFrom) or p.names]
        return tree

    def _open(self, name: str) -> Module | None:
        """The module of this project with that name, or None."""
        if name not in self.modules:
            place = self.root.joinpath(*name.split("."))
            paths = (place.with_suffix(".py"), place / "__init__.py")
            path = next((path for path in paths if path.is_file()), None)
            if path is None:
                return None
            tree = self._with_twins(name, ast.parse(path.read_bytes()))
            tree = tree if self.settled is None else self.settled(tree)
            held = Module(name, stripped(tree, "" if self.words else place.name, self.kinds))
            self.modules[name] = held
            for statement in held.tree.body:
                self._bind(held, statement)
        return self.modules[name]

    def _bind(self, held: Module, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                name = alias.asname or alias.name
                held.binds[name] = statement
                held.origins[name] = (statement.module or "", alias.name)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                held.binds[alias.asname or alias.name.split(".")[0]] = statement
        elif isinstance(statement, Definition):
            held.binds[statement.name] = statement
        else:
            names = [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and _stores(n)]
            held.binds |= dict.fromkeys(names, statement)
            if not names:  # it runs for what it does
                self._keep(held, statement)

    def _keep_name(self, held: Module, name: str) -> None:
        statement = held.binds.get(name)
        if statement is None:
            return
        if name in held.origins:
            module, origin = held.origins[name]
            if (inner := self._open(f"{module}.{origin}")) is not None:
                held.kept.add(statement)
                inner.kept.add(inner.tree)
                return
            if (inner := self._open(module)) is not None:
                self._keep_name(inner, origin)
        self._keep(held, statement)

    def _keep(self, held: Module, node: ast.AST) -> None:
        if node not in held.kept:
            held.kept.add(node)
            self._waiting.append((held, node))

    def _follow(self, held: Module, node: ast.AST) -> None:
        """Every name and attribute in a kept statement; methods wait until they are named."""
        for part in _walk(node):
            if isinstance(part, ast.Name):
                self._keep_name(held, part.id)
            elif isinstance(part, ast.Attribute):
                self.attributes.add(part.attr)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                self.attributes.add(part.value)
            elif isinstance(part, ast.ImportFrom) and part is not node:
                self._import_inside(part)
            elif isinstance(part, ast.FunctionDef) and part is not node:
                self._methods.append((held, part))

    def _import_inside(self, statement: ast.ImportFrom) -> None:
        inner = self._open(statement.module or "")
        for alias in statement.names if inner else ():
            assert inner is not None
            self._keep_name(inner, alias.name)

    def _wanted_methods(self) -> bool:
        """Move the methods that somebody names to those that are followed."""
        wanted = [(held, m) for held, m in self._methods if _named(m.name, self.attributes)]
        self._methods = [pair for pair in self._methods if pair not in wanted]
        for held, method in wanted:
            self._keep(held, method)
        return bool(self._waiting)


def _import_of(name: str, as_name: str) -> ast.ImportFrom:
    return ast.ImportFrom(TWINS, [ast.alias(name, None if as_name == name else as_name)], 0)


def _stores(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _named(name: str, attributes: set[str]) -> bool:
    return name in attributes or name in ALWAYS or (name.startswith("__") and name.endswith("__"))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement; of a class, its methods as single nodes."""
    if not isinstance(node, ast.ClassDef):
        yield from ast.walk(node)
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child
        else:
            yield from ast.walk(child)


def _left(held: Module) -> ast.Module:
    body = [part for statement in held.tree.body for part in _trimmed(held, statement)]
    return ast.Module(body, [])


def _trimmed(held: Module, statement: ast.stmt) -> Iterable[ast.stmt]:
    """The statement without what nobody reached, or nothing."""
    if statement not in held.kept:
        return []
    if isinstance(statement, ast.ClassDef):
        parts = [p for p in statement.body if not isinstance(p, ast.FunctionDef) or p in held.kept]
        statement.body = parts or [ast.Pass()]
    elif isinstance(statement, ast.ImportFrom | ast.Import):
        statement.names = [a for a in statement.names if _used(held, a, statement)]
    return [statement]


def _used(held: Module, alias: ast.alias, statement: ast.stmt) -> bool:
    name = alias.asname or alias.name.split(".")[0]
    others = (part for part in held.tree.body if part in held.kept and part is not statement)
    return any(
        isinstance(node, ast.Name) and node.id == name
        for part in others
        for node in _kept_nodes(held, part)
    )


def _kept_nodes(held: Module, statement: ast.stmt) -> Iterator[ast.AST]:
    for node in _walk(statement):
        if not (isinstance(node, ast.FunctionDef) and isinstance(statement, ast.ClassDef)):
            yield node
        elif node in held.kept:
            yield from ast.walk(node)


class _Strip(ast.NodeTransformer):
    """Without what only a reader needs: annotations, docstrings, assertions, words of errors."""

    def __init__(self, place: str, kinds: Collection[str]) -> None:
        self.place = place  # what errors say in place of their words; none: they keep these
        self.kinds = kinds

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        for argument in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
            kind = getattr(argument.annotation, "left", argument.annotation)  # of `kind | None`
            if getattr(kind, "id", None) not in self.kinds:
                argument.annotation = None
        for extra in (node.args.vararg, node.args.kwarg):
            if extra is not None:
                extra.annotation = None
        node.body = _undocumented(node.body)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        return ast.Pass() if node.value is None else _plain(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        for one in fields:  # which nobody reads
            one.annotation = ast.Name("int", ast.Load())
        rest = [part for part in node.body if part not in fields]
        for part in rest:
            self.visit(part)
        node.body = _undocumented(node.body)
        node.bases = [base for base in node.bases if not _is_of(base, "Generic")]
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        return ast.Pass()

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        """The error says where it stands in the sources instead of what is wrong."""
        if self.place and isinstance(node.exc, ast.Call) and node.exc.args:
            node.exc.args = [ast.Constant(f"{self.place}:{node.lineno}")]
        node.cause = None
        return node


def bare(tree: ast.Module) -> ast.Module:
    """Without the annotations that stayed so far."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        elif isinstance(node, ast.ClassDef):
            record = node.decorator_list or node.bases
            parts = [p for p in node.body if not isinstance(p, ast.AnnAssign) or p.value or record]
            node.body = parts or [ast.Pass()]
    return ast.fix_missing_locations(tree)


def _is_of(node: ast.expr, name: str) -> bool:
    """Whether it is `name[...]`."""
    return isinstance(node, ast.Subscript) and getattr(node.value, "id", None) == name


def _undocumented(body: list[ast.stmt]) -> list[ast.stmt]:
    return [part for part in body if not _is_text(part)] or [ast.Pass()]


def _is_text(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def stripped(tree: ast.Module, place: str, kinds: Collection[str] = ()) -> ast.Module:
    """What a machine needs of a module, and annotations of these kinds."""
    tree.body = [
        _plain(part)
        for part in tree.body
        if not _is_text(part) and getattr(part, "module", "") != "__future__"
    ]
    return ast.fix_missing_locations(_Strip(place, kinds).visit(tree))


def _plain(part: ast.stmt) -> ast.stmt:
    """`x: int = 1` as `x = 1`; in a class body such a line is a field and stays."""
    if isinstance(part, ast.AnnAssign) and part.value is not None:
        return ast.Assign([part.target], part.value, lineno=part.lineno)
    return part
