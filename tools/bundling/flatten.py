"""Several modules as one: every top-level name unique, no import of each other left."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping

Scope = ast.FunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def flatten(modules: Mapping[str, ast.Module]) -> ast.Module:
    """One module that does what importing all of them does.

    Modules come in the order of their imports; a name that two of them have gets a number.
    """
    names, aliased = dict[tuple[str, str], str](), _aliased(modules)
    # A top-level name that some function has for a variable would be two things in one file.
    taken = {*dir(builtins), *(name for tree in modules.values() for name in _local(tree))}
    for module, tree in modules.items():
        for name in _defined(tree):
            plain = (module, name) not in aliased
            # Elsewhere it has another name, and may meet a variable of its own one there.
            names[module, name] = _unique(name if plain else f"the_{name}", taken)
    outside: dict[str, ast.stmt] = {}
    body: list[ast.stmt] = []
    for module in in_order(modules):
        tree = modules[module]
        seen = {name: names[module, name] for name in _defined(tree)}
        rest = []
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module in modules:
                module_of = statement.module or ""
                for alias in statement.names:
                    seen[alias.asname or alias.name] = names[module_of, alias.name]
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                outside |= {ast.unparse(part): part for part in _one_by_one(statement)}
            else:
                rest.append(statement)
        body += [_Renamer(seen).visit(statement) for statement in rest]
    return ast.fix_missing_locations(ast.Module([*outside.values(), *body], []))


def in_order(modules: Mapping[str, ast.Module]) -> list[str]:
    """The modules, each behind those that it imports; a circle is cut where it closes."""
    done: dict[str, None] = {}
    begun = set[str]()

    def add(module: str) -> None:
        if module in begun:
            return
        begun.add(module)
        for statement in modules[module].body:
            if isinstance(statement, ast.ImportFrom) and (inner := statement.module) in modules:
                assert inner is not None
                add(inner)
        done.setdefault(module)

    for module in sorted(modules, key=lambda name: name == "__main__"):  # it runs: the last
        add(module)
    return list(done)


def _defined(tree: ast.Module) -> list[str]:
    """Top-level names that the module makes itself, in order."""
    found: dict[str, None] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.setdefault(statement.name)
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            found |= dict.fromkeys(stored([statement]))
    return list(found)


def _local(tree: ast.Module) -> Iterable[str]:
    """Variables of the functions in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            yield from (argument.arg for argument in arguments_of(node.args))
        if isinstance(node, ast.FunctionDef):
            yield from stored(node.body)
        elif isinstance(node, COMPREHENSIONS):
            yield from stored(loop.target for loop in node.generators)


def _aliased(modules: Mapping[str, ast.Module]) -> set[tuple[str, str]]:
    """What some module imports under another name."""
    found = set[tuple[str, str]]()
    for tree in modules.values():
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                found |= {(module, alias.name) for alias in node.names if alias.asname}
    return found


def _unique(name: str, taken: set[str]) -> str:
    number, chosen = 1, name
    while chosen in taken:
        number += 1
        chosen = f"{name}_{number}"
    taken.add(chosen)
    return chosen


def _one_by_one(statement: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
    """`from x import a, b` as two statements, so that each is there once."""
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in statement.names]
    return [ast.ImportFrom(statement.module, [alias], 0) for alias in statement.names]


class _Renamer(ast.NodeTransformer):
    """Gives the top-level names of a module their new ones, and leaves what shadows them."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.shadows: list[set[str]] = []

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if not any(node.id in scope for scope in self.shadows):
            node.id = self.names.get(node.id, node.id)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Names of a class body shadow inside that body alone, not inside its methods."""
        if not self.shadows:
            node.name = self.names.get(node.name, node.name)
        fields = stored(part for part in node.body if not isinstance(part, ast.FunctionDef))
        self._each(node, "decorator_list", "bases", "keywords")
        node.body = [self._member(part, set(fields)) for part in node.body]
        return node

    def _member(self, part: ast.stmt, fields: set[str]) -> ast.stmt:
        if isinstance(part, ast.FunctionDef):
            return self._inside(part, own=False)
        self.shadows.append(fields)
        done: ast.stmt = self.visit(part)
        self.shadows.pop()
        return done

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return self._inside(node, own=True)

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        self._defaults(node.args)
        with_names = {argument.arg for argument in arguments_of(node.args)}
        self.shadows.append(with_names)
        node.body = self.visit(node.body)
        self.shadows.pop()
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, COMPREHENSIONS):
            return super().generic_visit(node)
        first = node.generators[0]
        first.iter = self.visit(first.iter)  # the first source is evaluated outside
        self.shadows.append(set(stored(g.target for g in node.generators)))
        done, first.iter = first.iter, ast.Constant(None)
        super().generic_visit(node)
        first.iter = done
        self.shadows.pop()
        return node

    def _inside(self, node: ast.FunctionDef, own: bool) -> ast.FunctionDef:
        """A function; `own` if its name is a variable and not a method."""
        if own and not self.shadows:
            node.name = self.names.get(node.name, node.name)
        self._each(node, "decorator_list")
        self._defaults(node.args)
        local = {argument.arg for argument in arguments_of(node.args)} | set(stored(node.body))
        self.shadows.append(local)
        node.body = [self.visit(part) for part in node.body]
        self.shadows.pop()
        return node

    def _defaults(self, arguments: ast.arguments) -> None:
        arguments.defaults = [self.visit(value) for value in arguments.defaults]
        arguments.kw_defaults = [value and self.visit(value) for value in arguments.kw_defaults]

    def _each(self, node: ast.AST, *fields: str) -> None:
        for name in fields:
            setattr(node, name, [self.visit(part) for part in getattr(node, name)])


def arguments_of(arguments: ast.arguments) -> list[ast.arg]:
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return found + [extra for extra in (arguments.vararg, arguments.kwarg) if extra]


def stored(nodes: Iterable[ast.AST]) -> list[str]:
    """The names that these nodes bind in their own scope, in order."""
    found: dict[str, None] = {}
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.setdefault(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0]: None for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.setdefault(node.name)
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda, *COMPREHENSIONS)):
            waiting += list(ast.iter_child_nodes(node))[::-1]
    return list(found)
