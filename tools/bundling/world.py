"""World: what one module defines, and what it asks for."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from tools.bundling.constants import walk
from tools.bundling.trees import Field, is_partial, is_read, is_record, names_in

OTHERS = (str, bytes, list, dict, set, int, float, tuple, slice, range, Path, Exception)

FOREIGN = {name for kind in (*OTHERS, np.ndarray, np.dtype, np.generic) for name in dir(kind)}
FOREIGN |= {"forward", "parameters", "weight", "bias", "train", "eval", "device", "result", "item"}


class World:
    """Who is defined, and who is asked for, in one module."""

    def __init__(self, tree: ast.Module, kept: Collection[str] = ()) -> None:
        self.tree = tree
        self.kept = kept  # names that something may yet ask for
        self.functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self.classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
        self.methods: dict[str, list[tuple[ast.ClassDef, ast.FunctionDef]]] = {}
        for kind in self.classes.values():
            for part in kind.body:
                if isinstance(part, ast.FunctionDef):
                    self.methods.setdefault(part.name, []).append((kind, part))
        nodes = list(walk(tree))
        self.modules = _imported(nodes)
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        marks = [n.annotation for n in nodes if isinstance(n, ast.arg) and n.annotation]
        kinds = {id(part) for mark in marks for part in walk(mark)}
        names = [n for n in nodes if isinstance(n, ast.Name) and id(n) not in kinds]
        self.names = Counter(n.id for n in names if is_read(n))
        self.asked = Counter(n.attr for n in nodes if isinstance(n, ast.Attribute) and is_read(n))
        for name, found in self.methods.items():  # who is asked for by itself alone is not
            inside = [n for _, method in found for n in walk(method)]
            own = [n for n in inside if isinstance(n, ast.Attribute) and n.attr == name]
            self.asked[name] -= sum(map(is_read, own))
        keys = {id(key) for n in nodes if isinstance(n, ast.Dict) for key in n.keys}
        words = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        self.words = {n.value for n in words if id(n) not in keys}  # what getattr may ask for
        self.replaced = self.words if self.names["setattr"] else set[str]()  # others, it may be
        self.bases = {base.id for k in self.classes.values() for base in names_in(k.bases)}

    def own(self, attribute: ast.Attribute) -> bool:
        """Not a name inside an imported module."""
        root: ast.expr = attribute
        while isinstance(root, ast.Attribute):
            root = root.value
        return not (isinstance(root, ast.Name) and root.id in self.modules)

    def callables(self) -> Iterator[tuple[list[ast.Call], ast.FunctionDef, int]]:
        """Functions all of whose calls are known: the calls, the function, its hidden arguments."""
        by_name, by_attribute = dict[str, list[ast.Call]](), dict[str, list[ast.Call]]()
        for call in self.calls:
            called = call.args[0] if is_partial(call) else call.func
            if isinstance(called, ast.Name):
                by_name.setdefault(called.id, []).append(call)
            elif isinstance(called, ast.Attribute):
                by_attribute.setdefault(called.attr, []).append(call)
        for name, function in self.functions.items():
            calls = by_name.get(name, [])
            if len(calls) == self.names[name] and not function.decorator_list:
                yield calls, function, 0
        for name, found in self.methods.items():
            open_ = name in FOREIGN or name in self.replaced or name.startswith("__")
            if len(found) > 1 or open_:
                continue
            calls = by_attribute.get(name, [])
            if len(calls) == self.asked[name] and not found[0][1].decorator_list:
                yield calls, found[0][1], 1
        for name, kind in self.classes.items():
            starts = [m for _, m in self.methods.get("__init__", ()) if m in kind.body]
            calls = by_name.get(name, [])
            if starts and len(calls) == self.names[name] and name not in self.bases:
                yield calls, starts[0], 1

    def records(self) -> Iterator[tuple[str, list[Field], list[ast.Call] | None]]:
        """Dataclasses and the like with their fields, and their calls if all are known."""
        for name, kind in self.classes.items():
            if not is_record(kind):
                continue
            calls = [c for c in self.calls if isinstance(c.func, ast.Name) and c.func.id == name]
            parts = [p for p in kind.body if isinstance(p, ast.AnnAssign)]
            fields = [(p.target.id, p.value) for p in parts if isinstance(p.target, ast.Name)]
            known = len(calls) == self.names[name] and name not in self.kept
            yield name, fields, calls if known else None


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    parts = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(a.asname or a.name.split(".")[0]) for part in parts for a in part.names}
