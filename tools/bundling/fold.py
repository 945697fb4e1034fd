"""A recipe's settings put where the code asks for them, and the branches that they rule out gone.

Types are read from the annotations: a parameter annotated ModelSpec, or an attribute that __init__
sets from one, is the recipe's arch in a script that has one recipe. What a script may still be told
when it starts - seed, paths, schedule - is left in the code.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Any, get_args

from core.arch.fields import changed, from_plain, to_plain
from core.arch.params import Role
from core.arch.plan import Visit, forward_plan, longest, num_skips
from core.arch.spec import ModelSpec
from core.score.protocols import CHUNKED
from core.train.events import method
from core.train.recipe import Recipe, as_plain
from tools.bundling.constants import (
    SCALARS,
    Constants,
    constant,
    copied,
    is_known,
    is_pure,
    is_pure_or_made,
    value_of,
    walk,
)
from tools.bundling.twins import Keeper

# What a script is told when it starts: names that its first lines give a value.
TOLD = {
    ("Recipe", "seed"): "SEED",
    ("Data", "path"): "DATA_PATH",
    ("Data", "tokenizer"): "TOKENIZER_PATH",
}
# The whole and its parts, by which a script that needs one of them names it.
SECTIONS = {
    "Recipe": "RECIPE",
    "ModelSpec": "ARCH",
    "Optim": "OPTIM",
    "Schedule": "SCHEDULE",
    "Data": "DATA",
    "Quant": "QUANT",
    "Qat": "QAT",
    "Grid": "GRID",
    "Score": "SCORE",
}
# Checks of what was checked before: the recipe by the toolkit, the rest by who made it in this run.
CHECKED = {"check_weights", "check_snapshot", "_check_step", "_check_place"}
CHECKED |= {"data_identity"}  # what a checkpoint is held to
CHECKED_CLASSES = {"Packed", "Artifact"}
NAMED_BY_WORDS = ("LINES",)  # tables asked for words that are spelled in the code
# What tensors of a file of the first format version say: nothing of what the second one has.
FIRST = SimpleNamespace(is_float8=False, group_size=0, low_rank=None, rank=0, version=1)
# What follows from the recipe or a part of it, and constants, alone.
FOLLOWS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (longest, num_skips, method)}
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
    grids = [recipe.quant.grid(role) for role in get_args(Role)]
    visits = tuple(v for phase in phases for v in forward_plan(recipe.arch, phase))
    return {
        "Recipe": recipe,
        "ModelSpec": recipe.arch,
        "Optim": recipe.optim,
        "Schedule": recipe.schedule,
        "Data": recipe.data,
        "Quant": recipe.quant,
        "Qat": recipe.qat,
        "Score": recipe.score,
        "Visit": Common(visits),
        "Keeper": Keeper(None, lambda: 0.0),
        **({"Rounding": None} if recipe.qat.form == "none" else {}),
        **({"Side": None, "Sides": None} if recipe.score.adapt == "none" else {}),
        **({"Protocol": CHUNKED} if recipe.score.windows_by == CHUNKED else {}),
        **({} if _has_newer(recipe) else {"Packed": FIRST, "Row": FIRST}),
        **({"Grid": grids[0]} if all(grid == grids[0] for grid in grids) else {}),
    }


def _has_newer(recipe: Recipe) -> bool:
    """Whether its artifacts may be of the second format version."""
    quant = recipe.quant
    signs = quant.has_signs or quant.has_fp8 or quant.has_scale_groups
    return signs or quant.lqer_rank > 0


class Fold(Constants):
    """Over a module with its annotations."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.scope: Scope = {name: kind for kind, name in SECTIONS.items()}
        self.own: Scope = {}  # attributes of the class at hand
        recipe = values["Recipe"]
        self._has_longer_rows = recipe.score.seq_len > recipe.arch.seq_len  # in scoring

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """A recipe that was accepted before it was bundled is not checked once more."""
        outer = self.scope, self.own
        self.own = self._attributes(node)
        if node.name in self.values:
            self.scope = {**self.scope, "self": node.name}
        if node.name in self.values or node.name in CHECKED_CLASSES:
            node.body = [m for m in node.body if getattr(m, "name", "") != "__post_init__"]
        self.generic_visit(node)
        self.scope, self.own = outer
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if node.name in CHECKED:
            node.body = [ast.Pass()]
            return node
        outer = self.scope
        self.scope = {**outer, **self._arguments(node)}
        node.body = self.each(node.body) or [ast.Pass()]
        self.scope = outer
        return node

    def visit_For(self, node: ast.For) -> ast.stmt | list[ast.stmt]:
        """A loop's variable of the name `visit` is a visit of the plan."""
        outer = self.scope
        if isinstance(node.target, ast.Name) and node.target.id == "visit":
            self.scope = {**outer, "visit": "Visit"}
        done = super().visit_For(node)
        self.scope = outer
        return done

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | list[ast.stmt]:
        """Variables of a known kind; and what every rank says alike is its own maximum."""
        node.value = self.visit(node.value)
        for target, value in _pairs(node):
            kind = self._kind(value)
            if kind is not None:
                self.scope = {**self.scope, target: kind}
            elif target in self.scope and target not in SECTIONS.values():
                self.scope = {name: k for name, k in self.scope.items() if name != target}
        return _without_known_maxima(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A variable of a kind of which this recipe has nothing is None."""
        kind = self.scope.get(node.id, "")
        nothing = isinstance(node.ctx, ast.Load) and self.values.get(kind, ...) is None
        return ast.Constant(None) if nothing else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        kind = self._kind(node.value)
        node.value = self.visit(node.value)
        if isinstance(node.value, ast.Call) and is_pure_or_made(node.value):
            given = {k.arg: k.value for k in node.value.keywords}
            return given.get(node.attr, node)
        if kind is None or not isinstance(node.ctx, ast.Load):
            return node
        if (kind, node.attr) == ("ModelSpec", "seq_len") and self._has_longer_rows:
            return node
        if (kind, node.attr) in TOLD:
            return ast.Name(TOLD[kind, node.attr], ast.Load())
        value = getattr(self.values[kind], node.attr, ...)
        if type(value).__name__ in SECTIONS:
            return ast.Name(SECTIONS[type(value).__name__], ast.Load())
        return as_literal(value) or node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A method of a known thing, asked with constants; a recipe's parts as plain data."""
        kinds = [self._kind(argument) for argument in node.args]
        asked = self._kind(node.func.value) if isinstance(node.func, ast.Attribute) else None
        first = node.args[0] if node.args else None
        held = self._kind(first.value) if isinstance(first, ast.Attribute) else None
        bound = ast.unparse(node.func) == "partial" and all(map(is_pure, node.args))
        if bound and held == "Keeper":
            return ast.parse("lambda: False", mode="eval").body
        done = super().visit_Call(node)
        if not isinstance(done, ast.Call):
            return done
        if asked is not None and isinstance(done.func, ast.Attribute) and not done.keywords:
            method = getattr(self.values[asked], done.func.attr, None)
            if asked == "Keeper" and method and all(map(is_pure, done.args)):
                # It answers whatever it is asked alike.
                return as_literal(method(*[None] * len(done.args))) or done
            if callable(method) and all(map(is_known, done.args)):
                with suppress(TypeError):  # where a parameter that decides nothing is gone already
                    return as_literal(method(*map(value_of, done.args))) or done
            if asked == "Quant" and done.func.attr == "grid" and "Grid" in self.values:
                return ast.Name(SECTIONS["Grid"], ast.Load())
            if callable(method) and all(map(is_pure, done.args)):
                return self._whatever(asked, done.func.attr) or done
        if isinstance(done.func, ast.Name) and kinds and kinds[0] is not None:
            if done.func.id in FOLLOWS and all(map(is_known, done.args[1:])):
                rest = map(value_of, done.args[1:])
                return constant(FOLLOWS[done.func.id](self.values[kinds[0]], *rest))
            if done.func.id == "replace" and kinds[0] == "ModelSpec" and not self._has_longer_rows:
                return done.args[0]  # the spec for rows that never come
        if isinstance(done.func, ast.Name) and len(kinds) == 1 and kinds[0] is not None:
            if done.func.id == "to_plain" and kinds[0] in SECTIONS:
                return plain_literal(self.values[kinds[0]])
            if done.func.id == "as_plain":
                return plain_literal(self.values[kinds[0]], as_plain(self.values["Recipe"]))
            if done.func.id == "changed" and kinds[0] == "ModelSpec":
                same = from_plain(ModelSpec, to_plain(self.values[kinds[0]]), "model_spec")
                return constant(changed(same))
        return done

    def _whatever(self, kind: str, name: str) -> ast.expr | None:
        """What a method of a known thing gives, if that is one constant whatever it is asked."""
        source = textwrap.dedent(inspect.getsource(getattr(type(self.values[kind]), name)))
        method = ast.parse(source).body[0]
        assert isinstance(method, ast.FunctionDef)
        method.args.args[0].annotation = ast.Name(kind, ast.Load())
        end = self.visit_FunctionDef(method).body[0]
        given = end.value if isinstance(end, ast.Return) else None
        return given if given is not None and is_known(given) else None

    def _kind(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.scope.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if node.attr == "recipe":  # there is one, whoever holds it
            return "Recipe"
        if node.attr == "protocol" and "Protocol" in self.values:
            return "Protocol"
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self.own.get(node.attr)
        kind = self._kind(node.value)
        held = getattr(self.values[kind], node.attr, None) if kind else None
        same = (name for name, value in self.values.items() if value is held)
        return None if held is None else next(same, None)

    def _arguments(self, node: ast.FunctionDef) -> Scope:
        found = {}
        for argument in (*node.args.args, *node.args.kwonlyargs):
            kind = argument.annotation
            if isinstance(kind, ast.BinOp):  # ModelSpec | None
                kind = kind.left
            if isinstance(kind, ast.Name) and kind.id in self.values:
                found[argument.arg] = kind.id
        return found

    def _attributes(self, node: ast.ClassDef) -> Scope:
        """self.x = spec in __init__, spec a parameter of a known kind."""
        starts = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
        found: Scope = {}
        for start in starts:
            arguments = self._arguments(start)
            for part in walk(start):
                if isinstance(part, ast.Assign) and isinstance(part.value, ast.Name):
                    target, kind = part.targets[0], arguments.get(part.value.id)
                    if isinstance(target, ast.Attribute) and kind is not None:
                        found[target.attr] = kind
        return found


def _without_known_maxima(node: ast.Assign) -> ast.Assign | list[ast.stmt]:
    """`a, b = group.max(x, False)` as `a, = group.max(x)` and `b = False`."""
    target, call = node.targets[0], node.value
    if not isinstance(target, ast.Tuple) or not isinstance(call, ast.Call):
        return node
    if ast.unparse(call.func) != "group.max":
        return node
    pairs = list(zip(target.elts, call.args, strict=True))
    settled: list[ast.stmt] = [ast.Assign([t], value) for t, value in pairs if is_known(value)]
    target.elts = [t for t, value in pairs if not is_known(value)]
    call.args = [value for value in call.args if not is_known(value)]
    return [node, *settled] if settled else node


def as_literal(value: Any) -> ast.expr | None:
    """The value as an expression, if it is made of scalars, or None."""
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    if not _is_small(value):
        return None
    return ast.parse(literal(value), mode="eval").body


def literal(value: Any) -> str:
    """The value as Python source; of a dataclass, what is not its default."""
    if isinstance(value, tuple):
        return f"({''.join(f'{literal(part)},' for part in value)})"
    if not is_dataclass(value):
        return repr(value)
    said = {f.name: getattr(value, f.name) for f in fields(value)}
    words = (f"{f.name}={literal(said[f.name])}" for f in fields(value) if _differs(f, said))
    return f"{type(value).__name__}({', '.join(words)})"


def plain_literal(value: Any, plain: Mapping[str, Any] | None = None) -> ast.expr:
    """A section, or all, of a recipe as a dict; what is told later by its name.

    plain: which of its fields, where these are not all.
    """
    pairs = dict[str, ast.expr]()
    for part in fields(value):
        if plain is not None and part.name not in plain:
            continue
        held, told = getattr(value, part.name), TOLD.get((type(value).__name__, part.name))
        inner = None if plain is None else plain[part.name]
        pairs[part.name] = ast.Name(told, ast.Load()) if told else _plain_part(held, inner)
    return ast.Dict([ast.Constant(name) for name in pairs], list(pairs.values()))


def _plain_part(value: Any, plain: Any = None) -> ast.expr:
    if is_dataclass(value):
        return plain_literal(value, plain)
    if isinstance(value, tuple):
        return ast.List([_plain_part(part) for part in value], ast.Load())
    return constant(value)


def _is_small(value: Any) -> bool:
    """A scalar, or a tuple or a dataclass of such, as a phase of the batches."""
    if isinstance(value, tuple):
        return all(map(_is_small, value))
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_small(getattr(value, part.name)) for part in fields(value))
    return isinstance(value, SCALARS)


def _differs(field: Field[Any], said: Mapping[str, Any]) -> bool:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    return bool(default != said[field.name])


def without_registries(tree: ast.Module) -> ast.Module:
    """Top-level dicts that are only asked for constant keys give their values where it is asked."""
    tables = dict[str, dict[Any, ast.expr]]()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            target = node.targets[0]
            assert isinstance(target, ast.Name)
            if target.id in NAMED_BY_WORDS:
                _only_spelled(tree, node.value)
            keys = [getattr(key, "value", ...) for key in node.value.keys]
            tables[target.id] = dict(zip(keys, node.value.values, strict=True))
    done: ast.Module = _Looked(tables).visit(tree)
    return done


def _only_spelled(tree: ast.Module, table: ast.Dict) -> None:
    """Without the entries whose keys are spelled nowhere else."""
    own = {id(key) for key in table.keys}
    words = {n.value for n in walk(tree) if isinstance(n, ast.Constant) and id(n) not in own}
    pairs = list(zip(table.keys, table.values, strict=True))
    kept = [(key, value) for key, value in pairs if getattr(key, "value", ...) in words]
    table.keys, table.values = [key for key, _ in kept], [value for _, value in kept]


class _Looked(ast.NodeTransformer):
    """Answers `TABLE[key]`, `TABLE.get(key)` and `key in TABLE` for constant keys."""

    def __init__(self, tables: Mapping[str, Mapping[Any, ast.expr]]) -> None:
        self.tables = tables

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and isinstance(node.slice, ast.Constant):
            return copied(self.tables.get(node.value.id, {}).get(node.slice.value, node))
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        func = node.func
        if not (isinstance(func, ast.Attribute) and func.attr == "get" and len(node.args) == 1):
            return node
        if not (isinstance(func.value, ast.Name) and isinstance(node.args[0], ast.Constant)):
            return node
        table = self.tables.get(func.value.id)
        missing = node if table is None else ast.Constant(None)
        return copied((table or {}).get(node.args[0].value, missing))

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        table = node.comparators[0]
        if not (isinstance(node.ops[0], ast.In) and isinstance(node.left, ast.Constant)):
            return node
        if isinstance(table, ast.Name) and table.id in self.tables:
            return ast.Constant(node.left.value in self.tables[table.id])
        return node


def _pairs(node: ast.Assign) -> list[tuple[str, ast.expr]]:
    """Variables with what they are set to."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        return [(t.id, v) for t, v in pairs if isinstance(t, ast.Name)]
    return [(target.id, value)] if isinstance(target, ast.Name) else []
