"""What a whole program decides about itself, once nobody else can call into it.

Parameters and attributes that are given one constant everywhere are that constant; what nobody asks
for is left out, with all that was computed for it. A name of an attribute stands for all attributes
of that name: where others' objects may have it too (FOREIGN), nothing is concluded.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tools.bundling.constants import Constants, is_known, is_pure, tidy, truth, walk
from tools.bundling.flatten import COMPREHENSIONS, arguments_of, stored

Function = ast.FunctionDef | ast.Lambda
Field = tuple[str, ast.expr | None]  # name, default

OTHERS = (str, bytes, list, dict, set, int, float, tuple, slice, range, Path, Exception)
FOREIGN = {name for kind in (*OTHERS, np.ndarray, np.dtype, np.generic) for name in dir(kind)}
FOREIGN |= {"forward", "parameters", "weight", "bias", "train", "eval", "device", "result", "item"}
INLINED_CHARS = 40  # a longer constant that is asked for often stays a name


class World:
    """Who is defined, and who is asked for, in one module."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
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
        self.names = Counter(n.id for n in names if _loads(n))
        self.asked = Counter(n.attr for n in nodes if isinstance(n, ast.Attribute) and _loads(n))
        keys = {id(key) for n in nodes if isinstance(n, ast.Dict) for key in n.keys}
        words = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        self.words = {n.value for n in words if id(n) not in keys}  # what getattr may ask for
        self.bases = {base.id for k in self.classes.values() for base in _names(k.bases)}

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
            called = call.args[0] if _is_partial(call) else call.func
            if isinstance(called, ast.Name):
                by_name.setdefault(called.id, []).append(call)
            elif isinstance(called, ast.Attribute):
                by_attribute.setdefault(called.attr, []).append(call)
        for name, function in self.functions.items():
            calls = by_name.get(name, [])
            if len(calls) == self.names[name] and not function.decorator_list:
                yield calls, function, 0
        for name, found in self.methods.items():
            if len(found) > 1 or name in FOREIGN or name.startswith("__"):
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
            if not _is_record(kind):
                continue
            calls = [c for c in self.calls if isinstance(c.func, ast.Name) and c.func.id == name]
            parts = [p for p in kind.body if isinstance(p, ast.AnnAssign)]
            fields = [(p.target.id, p.value) for p in parts if isinstance(p.target, ast.Name)]
            yield name, fields, calls if len(calls) == self.names[name] else None


def settle(tree: ast.Module, fold: Callable[[ast.Module], ast.Module]) -> ast.Module:
    """The same program without what it decides itself."""
    passes = (unused, constant_globals, constant_locals, split_pairs, settled_parameters)
    passes += (settled_attributes, constant_functions, inlined)
    before = ""
    while (now := ast.dump(tree)) != before:
        before = now
        for work in passes:
            work(World(tree))
        tidy(tree)
        tree = fold(tree)
        tidy(tree)
    return tree


def constant_globals(world: World) -> None:
    """A name for one constant is that constant, unless it is long and asked for often."""
    set_ = Counter(stored(world.tree.body))
    found = {}
    for node in world.tree.body:
        for name, value in _assigned(node):
            short = is_known(value) and len(ast.unparse(value)) <= INLINED_CHARS
            if set_[name] == 1 and is_known(value) and (short or world.names[name] == 1):
                found[name] = value
    _Given(found).visit(world.tree)


def constant_locals(world: World) -> None:
    """Variables that are set once, to a constant or to another variable that stays."""
    for function in _functions(world.tree):
        changing = _stores(function)
        inner = set(_bound_inside(function))
        for node in _own_statements(function):
            for name, value in _assigned(node):
                if isinstance(value, ast.Tuple) and changing[name] == 1 and is_pure(value):
                    _Spread(name, value.elts).visit(function)
                if isinstance(value, ast.Dict) and changing[name] == 1 and _is_flat(value):
                    _Looked(name, value).visit(function)
                stays = is_known(value) or _is_argument(value, function, changing)
                alias = value.id if isinstance(value, ast.Name) else ""
                if stays and changing[name] == 1 and not {name, alias} & inner:
                    _Given({name: value}).visit(function)
                    break


def split_pairs(world: World) -> None:
    """`a, b = 1, x` as two statements where one of them may go."""
    for node in walk(world.tree):
        for block in _blocks(node):
            for i in range(len(block) - 1, -1, -1):
                parts = _pairs(block[i])
                if any(is_known(value) or _is_idle(world, t, node) for t, value in parts):
                    block[i : i + 1] = [ast.Assign([t], value) for t, value in parts]


def settled_parameters(world: World) -> None:
    """Parameters that no call sets, or all to the same constant, or that nobody reads."""
    for calls, function, hidden in world.callables():
        names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)][hidden:]
        defaults = _defaults(function.args)
        bound = [_bind(call, [(n, defaults.get(n)) for n in names]) for call in calls]
        if not bound or any(one is None for one in bound) or function.args.vararg:
            continue
        changing = _stores(function)
        inner = set(_bound_inside(function))
        read = Counter(n.id for n in _walk_all(function.body) if isinstance(n, ast.Name))
        for name in names:
            given = [one[name] for one in bound if one is not None]
            if any(value is None or not is_pure(value) for value in given):
                continue
            same = len({ast.dump(value) for value in given if value}) == 1
            if same and changing[name] and is_known(given[0]):
                changing[name] -= _never_stored(function, name, given[0])
            same = same and (is_known(given[0]) or _is_defined(world, given[0], function, name))
            if same and name not in inner and not changing[name]:
                assert given[0] is not None
                for i, part in enumerate(function.body):
                    function.body[i] = _Given({name: given[0]}).visit(part)
            elif read[name]:
                continue
            _drop(function.args, name)
            for call in calls:
                _drop_argument(call, names, name)
            names = [other for other in names if other != name]


def settled_attributes(world: World) -> None:
    """Attributes that are set to one constant wherever they are set."""
    given: dict[str, list[ast.expr | None]] = {}
    for name, fields, calls in world.records():
        bound = [_bind(call, fields) for call in calls] if calls is not None else [None]
        for one in bound:
            for field, _ in fields:
                given.setdefault(field, []).append(one[field] if one else None)
    for kind in world.classes.values():
        if not _is_record(kind):
            for part in kind.body:
                for name, value in _assigned(part):
                    given.setdefault(name, []).append(value)
                if isinstance(part, ast.AnnAssign) and part.value is not None:
                    given.setdefault(_field_name(part), []).append(part.value)
    plain = {id(t): v for n in walk(world.tree) for t, v in _set_attributes(n)}
    for node in walk(world.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            given.setdefault(node.attr, []).append(plain.get(id(node)))
        elif isinstance(node, ast.Call) and _called(node) == "replace":
            for keyword in node.keywords:
                given.setdefault(keyword.arg or "", []).append(keyword.value)
    settled = {
        name: values[0]
        for name, values in given.items()
        if name not in FOREIGN and name not in world.methods
        and all(value is not None and is_known(value) for value in values)
        and len({ast.dump(value) for value in values if value}) == 1
    }
    _Attributes(world, settled).visit(world.tree)


def constant_functions(world: World) -> None:
    """Calls of what always gives the same constant."""
    names, methods, properties = {}, {}, {}
    for name, function in world.functions.items():
        if (value := _only_value(function)) is not None and not function.decorator_list:
            names[name] = value
    for name, found in world.methods.items():
        value = _only_value(found[0][1])
        if len(found) > 1 or name in FOREIGN or name.startswith("__") or value is None:
            continue
        if not found[0][1].decorator_list:
            methods[name] = value
        elif [d.id for d in _names(found[0][1].decorator_list)] == ["property"]:
            properties[name] = value
    _Attributes(world, properties).visit(world.tree)
    _Answered(world, names, methods).visit(world.tree)


def inlined(world: World) -> None:
    """Functions of one expression that are called in one place stand there."""
    for node in walk(world.tree):
        for block in _blocks(node):
            _return_at_once(block)
    instead = dict[int, ast.expr]()
    for calls, function, hidden in world.callables():
        part = function.body[0]
        if len(calls) != 1 or len(function.body) > 1 or not isinstance(part, ast.Return):
            continue
        given = _given_once(calls[0], function, hidden)
        if given is not None and part.value is not None:
            value = _Given(given).visit(copy.deepcopy(part.value))
            instead[id(calls[0])] = value
    _Replaced(instead).visit(world.tree)


def _return_at_once(block: list[ast.stmt]) -> None:
    """`x = y; return x` as `return y`."""
    for i in range(len(block) - 1, 0, -1):
        end, before = block[i], _assigned(block[i - 1])
        if isinstance(end, ast.Return) and isinstance(end.value, ast.Name):
            if before and before[0][0] == end.value.id:
                block[i - 1 : i + 1] = [ast.Return(before[0][1])]


def _given_once(
    call: ast.Call, function: ast.FunctionDef, hidden: int
) -> dict[str, ast.expr] | None:
    """What to put for each parameter, where the expression means the same behind it."""
    every = arguments_of(function.args)
    defaults = _defaults(function.args)
    bound = _bind(call, [(a.arg, defaults.get(a.arg)) for a in every[hidden:]])
    if bound is None or _is_partial(call) or function.args.vararg or function.decorator_list:
        return None
    if hidden:
        if not isinstance(call.func, ast.Attribute) or function.name == "__init__":
            return None
        bound[every[0].arg] = call.func.value
    uses = Counter(n.id for n in walk(function) if isinstance(n, ast.Name))
    plain = not any(isinstance(n, (ast.Lambda, *COMPREHENSIONS)) for n in walk(function))
    given = {name: value for name, value in bound.items() if value is not None}
    fits = len(given) == len(every) and function.name not in uses
    for name, value in given.items():
        simple = isinstance(value, ast.Name) or is_known(value)
        once = plain and uses[name] <= 1 and is_pure(value)
        fits = fits and (simple or once)
    inner = {*_bound_inside(function)}
    named = {n.id for value in given.values() for n in walk(value) if isinstance(n, ast.Name)}
    return given if fits and not inner & named else None


def unused(world: World) -> None:
    """Definitions, methods, fields, attributes and variables that nobody asks for."""
    _unread_fields(world)
    _unread_locals(world)
    for node in walk(world.tree):
        for block in _blocks(node):
            block[:] = [part for part in block if not _sets_unread(world, part)]
    for kind in world.classes.values():
        kind.body = [part for part in kind.body if not _is_unasked(world, kind, part)]
    world.tree.body = [part for part in world.tree.body if not _is_unnamed(part, world.names)]
    tidy(world.tree)


def _unread_fields(world: World) -> None:
    for name, fields, calls in world.records():
        kind = world.classes[name]
        if calls is None or "dataclass" not in _decorators(kind) or _is_read_whole(world, name):
            continue
        for field, _ in fields:
            if world.asked[field] or field in world.words:
                continue
            given = [_bind(call, fields) for call in calls]
            changed = [k for c in world.calls if _called(c) == "replace" for k in c.keywords]
            again = [k.value for k in changed if k.arg == field]
            if all(one is not None and is_pure(one[field]) for one in given) and all(
                map(is_pure, again)
            ):
                for call in world.calls:
                    if _called(call) == "replace":
                        call.keywords = [k for k in call.keywords if k.arg != field]
                names = [other for other, _ in fields]
                for call in calls:
                    _drop_argument(call, names, field)
                fields = [pair for pair in fields if pair[0] != field]
                kind.body = [part for part in kind.body if _field_name(part) != field]


def _unread_locals(world: World) -> None:
    for function in _functions(world.tree):
        if isinstance(function, ast.Lambda):
            continue
        read = {n.id for n in walk(function) if isinstance(n, ast.Name) and _loads(n)}
        for node in _own_nodes(function):
            for block in _blocks(node):
                raises = isinstance(block[-1] if block else None, ast.Raise)
                block[:] = [_without_target(part, read, raises) for part in block]


def _without_target(part: ast.stmt, read: set[str], raises: bool) -> ast.stmt:
    """Without a variable that nobody reads; before an error it was for its words alone."""
    idle = [name for name, _ in _assigned(part) if name not in read]
    if not idle or not isinstance(part, ast.Assign):
        return part
    return ast.Pass() if raises or is_pure(part.value) else ast.Expr(part.value)


def _sets_unread(world: World, part: ast.stmt) -> bool:
    """self.x = y where nobody reads x."""
    if not isinstance(part, ast.Assign) or len(part.targets) > 1 or not is_pure(part.value):
        return False
    target = part.targets[0]
    return isinstance(target, ast.Attribute) and _is_unread(world, target)


def _is_unread(world: World, target: ast.Attribute) -> bool:
    own = world.own(target) and target.attr not in FOREIGN
    return own and not world.asked[target.attr] and target.attr not in world.words


def _is_idle(world: World, target: ast.expr, scope: ast.AST) -> bool:
    if isinstance(target, ast.Attribute):
        return _is_unread(world, target)
    if not isinstance(target, ast.Name):
        return False
    names = (n for n in walk(scope) if isinstance(n, ast.Name) and _loads(n))
    return isinstance(scope, ast.FunctionDef) and all(n.id != target.id for n in names)


def _is_unasked(world: World, kind: ast.ClassDef, part: ast.stmt) -> bool:
    if isinstance(part, ast.FunctionDef):
        special = part.name.startswith("__") or part.name == "forward"
        return not (special or world.asked[part.name] or part.name in world.words)
    names = [name for name, _ in _assigned(part)]
    if not _is_record(kind) and isinstance(part, ast.AnnAssign):
        names = [_field_name(part)]
    return bool(names) and not any(world.asked[n] or n in world.words or n in FOREIGN for n in names)


def _is_unnamed(part: ast.stmt, names: Counter[str]) -> bool:
    if isinstance(part, ast.FunctionDef | ast.ClassDef):
        return not names[part.name]
    if isinstance(part, ast.Import | ast.ImportFrom):
        return not names[part.names[0].asname or part.names[0].name.split(".")[0]]
    # Nothing is done for its effect at import.
    return isinstance(part, ast.Assign) and not any(names[name] for name in stored([part]))


def _is_read_whole(world: World, name: str) -> bool:
    """Its fields are asked for by a function that reads any dataclass."""
    return "asdict" in world.asked and name in ("Row", "Stream")


def _only_value(function: ast.FunctionDef) -> ast.expr | None:
    body = function.body
    if len(body) != 1 or isinstance(body[0], ast.Return) and body[0].value is None:
        return ast.Constant(None) if len(body) == 1 else None
    if isinstance(body[0], ast.Pass):
        return ast.Constant(None)
    value = body[0].value if isinstance(body[0], ast.Return) else None
    return value if value is not None and is_known(value) else None


def _bind(call: ast.Call, fields: Iterable[Field]) -> dict[str, ast.expr | None] | None:
    """What a call gives each parameter; None where that cannot be told."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(not k.arg for k in call.keywords):
        return None
    bound = dict(fields)
    if _is_partial(call):  # what it leaves open is given elsewhere
        bound = dict.fromkeys(bound)
    bound |= dict(zip(list(bound), call.args[_is_partial(call) :], strict=False))
    bound |= {k.arg: k.value for k in call.keywords if k.arg}
    return bound


def _drop_argument(call: ast.Call, names: list[str], name: str) -> None:
    at = names.index(name) + _is_partial(call)
    del call.args[at : at + 1]
    call.keywords = [keyword for keyword in call.keywords if keyword.arg != name]


def _defaults(args: ast.arguments) -> dict[str, ast.expr]:
    found = dict(zip([a.arg for a in args.args][::-1], args.defaults[::-1], strict=False))
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return found | {a.arg: value for a, value in pairs if value is not None}


def _drop(args: ast.arguments, name: str) -> None:
    for i, argument in enumerate(args.args):
        if argument.arg == name:
            from_end = len(args.args) - i
            if from_end <= len(args.defaults):
                del args.defaults[len(args.defaults) - from_end]
            del args.args[i]
            return
    at = [argument.arg for argument in args.kwonlyargs].index(name)
    del args.kwonlyargs[at], args.kw_defaults[at]


class _Given(ast.NodeTransformer):
    """Puts constants where names are read."""

    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if _loads(node) and node.id in self.values:
            return copy.deepcopy(self.values[node.id])
        return node


class _Replaced(ast.NodeTransformer):
    def __init__(self, instead: dict[int, ast.expr]) -> None:
        self.instead = instead

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if id(node) in self.instead:
            return self.instead[id(node)]
        self.generic_visit(node)
        return node


class _Spread(ast.NodeTransformer):
    """`f(*rest)` with the parts of `rest`."""

    def __init__(self, name: str, parts: list[ast.expr]) -> None:
        self.name, self.parts = name, parts

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        args = list[ast.expr]()
        for part in node.args:
            starred = isinstance(part, ast.Starred) and isinstance(part.value, ast.Name)
            args += self.parts if starred and part.value.id == self.name else [part]
        node.args = args
        return node


class _Looked(ast.NodeTransformer):
    """`table[key]` and `table.get(key)` with the table itself, where that may decide it."""

    def __init__(self, name: str, table: ast.Dict) -> None:
        self.name, self.table = name, table

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if _word(node.value) == self.name and is_known(node.slice) and _loads(node):
            node.value = copy.deepcopy(self.table)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr == "get" and _word(func.value) == self.name:
            if all(map(is_known, self.table.values)):
                asked = ast.Attribute(copy.deepcopy(self.table), "get", ast.Load())
                return Constants().visit(ast.Call(asked, node.args, []))
        return node


class _Attributes(ast.NodeTransformer):
    def __init__(self, world: World, values: dict[str, ast.expr | None]) -> None:
        self.world, self.values = world, values

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        found = self.values.get(node.attr)
        if found is not None and _loads(node) and self.world.own(node) and is_pure(node.value):
            return copy.deepcopy(found)
        self.generic_visit(node)
        return node


class _Answered(ast.NodeTransformer):
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
        return node if found is None else copy.deepcopy(found)

    def _worked_out(self, node: ast.Call, name: str) -> ast.expr | None:
        """What a function of one expression gives for constants."""
        function = self.world.functions.get(name)
        if function is None or len(function.body) > 1 or not any(map(is_known, node.args)):
            return None
        names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
        defaults = _defaults(function.args)
        bound = _bind(node, [(n, defaults.get(n)) for n in names])
        part = function.body[0]
        if bound is None or not isinstance(part, ast.Return) or part.value is None:
            return None
        given = {n: v for n, v in bound.items() if v is not None and is_known(v)}
        value = Constants().visit(_Given(given).visit(copy.deepcopy(part.value)))
        return value if is_known(value) else None


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    parts = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(a.asname or a.name.split(".")[0]) for part in parts for a in part.names}


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in walk(tree) if isinstance(node, ast.FunctionDef)]


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The function and its statements, without those of functions inside it."""
    waiting: list[ast.AST] = [function]
    while waiting:
        node = waiting.pop()
        yield node
        for block in _blocks(node):
            waiting += [p for p in block if not isinstance(p, ast.FunctionDef | ast.ClassDef)]
        waiting += getattr(node, "handlers", [])


def _own_statements(function: ast.FunctionDef) -> list[ast.stmt]:
    return [node for node in _own_nodes(function) if isinstance(node, ast.stmt)]


def _stores(function: ast.FunctionDef) -> Counter[str]:
    """How often each name is set in the function's own scope."""
    found: Counter[str] = Counter()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] += 1
        elif isinstance(node, ast.FunctionDef):
            found[node.name] += 2
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] += 1
        if not isinstance(node, (ast.FunctionDef, ast.Lambda, *COMPREHENSIONS)):
            waiting += list(ast.iter_child_nodes(node))
    return found


def _bound_inside(function: ast.FunctionDef) -> Iterator[str]:
    """Names that functions and comprehensions inside this one bind for themselves."""
    for node in walk(function):
        if node is function:
            continue
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            yield from (argument.arg for argument in arguments_of(node.args))
        if isinstance(node, ast.FunctionDef):
            yield from stored(node.body)
        elif isinstance(node, COMPREHENSIONS):
            yield from stored(loop.target for loop in node.generators)


def _is_defined(
    world: World, value: ast.expr | None, function: ast.FunctionDef, name: str
) -> bool:
    """A function or class of the module, whose name means the same inside `function`."""
    if not isinstance(value, ast.Name) or value.id not in {**world.functions, **world.classes}:
        return False
    local = {*_stores(function), *_bound_inside(function)}
    others = {a.arg for a in arguments_of(function.args)} - {name}
    return value.id not in local | others


def _never_stored(function: ast.FunctionDef, name: str, value: ast.expr | None) -> int:
    """How often a name that begins as `value` is set where that rules it out."""
    count = 0
    for node in walk(function):
        if isinstance(node, ast.If) and not node.orelse and value is not None:
            test = _Given({name: value}).visit(copy.deepcopy(node.test))
            if truth(Constants().visit(test)) is False:
                names = [n for part in node.body for n in walk(part) if isinstance(n, ast.Name)]
                count += sum(n.id == name and not _loads(n) for n in names)
    return count


def _is_flat(table: ast.Dict) -> bool:
    """Nothing in it can be changed through it."""
    held = all(is_known(v) or isinstance(v, ast.Lambda | ast.Call) for v in table.values)
    return held and is_pure(table)


def _is_argument(value: ast.expr, function: ast.FunctionDef, changing: Counter[str]) -> bool:
    names = [argument.arg for argument in arguments_of(function.args)]
    return isinstance(value, ast.Name) and value.id in names and not changing[value.id]


def _assigned(node: ast.stmt) -> list[tuple[str, ast.expr]]:
    """x = value."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        if isinstance(target, ast.Name):
            return [(target.id, node.value)]
    return []


def _set_attributes(node: ast.AST) -> list[tuple[ast.Attribute, ast.expr]]:
    if not isinstance(node, ast.Assign):
        return []
    pairs = _pairs(node) or [(target, node.value) for target in node.targets]
    return [(target, value) for target, value in pairs if isinstance(target, ast.Attribute)]


def _pairs(node: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
    """`a, b = x, y` as pairs, where one after the other is the same."""
    if not isinstance(node, ast.Assign) or len(node.targets) > 1:
        return []
    target, value = node.targets[0], node.value
    if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
        return []
    pairs = list(zip(target.elts, value.elts, strict=False))
    plain = [not isinstance(n, ast.Subscript | ast.Starred) for n in walk(target)]
    if not all(plain) or len(target.elts) != len(value.elts):
        return []
    # A call sees no variable, but it may see an attribute that was to be set after it.
    seen = any(isinstance(n, ast.Attribute) for n in walk(target))
    if seen and not all(map(is_pure, value.elts)):
        return []
    for i, (before, _) in enumerate(pairs):
        words = {_word(n) for n in walk(before)} - {"", "self"}
        if words & {_word(n) for _, v in pairs[i + 1 :] for n in walk(v)}:
            return []
    return pairs


def _word(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _blocks(node: ast.AST) -> list[list[ast.stmt]]:
    found = (getattr(node, name, None) for name in ("body", "orelse", "finalbody"))
    return [block for block in found if isinstance(block, list)]


def _walk_all(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from walk(node)


def _is_record(kind: ast.ClassDef) -> bool:
    return "dataclass" in _decorators(kind) or any(b.id == "NamedTuple" for b in _names(kind.bases))


def _decorators(kind: ast.ClassDef) -> set[str]:
    parts = [d.func if isinstance(d, ast.Call) else d for d in kind.decorator_list]
    return {name.id for name in _names(parts)}


def _field_name(part: ast.stmt) -> str:
    return getattr(part.target, "id", "") if isinstance(part, ast.AnnAssign) else ""


def _is_partial(call: ast.Call) -> bool:
    return _called(call) == "partial"


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _names(nodes: Iterable[ast.AST]) -> list[ast.Name]:
    return [node for node in nodes if isinstance(node, ast.Name)]


def _loads(node: ast.Name | ast.Attribute | ast.Subscript) -> bool:
    return isinstance(node.ctx, ast.Load)
