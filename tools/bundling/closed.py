"""What a whole program decides about itself, once nobody else can call into it.

Parameters and attributes that are given one constant everywhere are that constant; what nobody asks
for is left out, with all that was computed for it. A name of an attribute stands for all attributes
of that name: where others' objects may have it too (FOREIGN), nothing is concluded.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Collection

from tools.bundling.constants import (
    Constants,
    copied,
    is_known,
    is_pure,
    is_pure_or_made,
    tidy,
    truth,
    walk,
)
from tools.bundling.flatten import COMPREHENSIONS, arguments_of, stored
from tools.bundling.swap import Answered, Attributes, Given, Looked, Replaced, Spread
from tools.bundling.trees import (
    assigned_in,
    bind,
    blocks_of,
    bound_inside,
    called_name,
    decorators_of,
    defaults_of,
    drop,
    drop_argument,
    field_name,
    functions_in,
    is_only_called,
    is_partial,
    is_read,
    is_record,
    names_in,
    own_nodes,
    own_statements,
    pairs_of,
    set_attributes,
    stores_of,
    walk_all,
    word_of,
)
from tools.bundling.world import FOREIGN, World

INLINED_CHARS = 40  # a longer constant that is asked for often stays a name


def settle(
    tree: ast.Module, fold: Callable[[ast.Module], ast.Module], kept: Collection[str]
) -> ast.Module:
    """The same program without what it decides itself. `kept`: what `fold` may yet name."""
    passes = (
        *(unused, constant_globals, constant_locals, split_pairs, split_answers),
        *(settled_parameters, settled_attributes, constant_functions, inlined),
    )
    before = ""
    while (now := ast.dump(tree)) != before:
        before = now
        for work in passes:
            work(World(tree, kept))
        tidy(tree)
        tree = fold(tree)
        tidy(tree)
    return tree


def constant_globals(world: World) -> None:
    """A name for one constant is that constant, unless it is long and asked for often."""
    set_ = Counter(stored(world.tree.body))
    found = {}
    for node in world.tree.body:
        for name, value in assigned_in(node):
            short = is_known(value) and len(ast.unparse(value)) <= INLINED_CHARS
            if set_[name] == 1 and is_known(value) and (short or world.names[name] == 1):
                found[name] = value
    Given(found).visit(world.tree)


def constant_locals(world: World) -> None:
    """Variables that are set once, to a constant or to another variable that stays."""
    for function in functions_in(world.tree):
        changing = stores_of(function)
        inner = set(bound_inside(function))
        for node in own_statements(function):
            for name, value in assigned_in(node):
                if isinstance(value, ast.Tuple) and changing[name] == 1 and is_pure(value):
                    Spread(name, value.elts).visit(function)
                if isinstance(value, ast.Dict) and changing[name] == 1 and _is_flat(value):
                    Looked(name, value).visit(function)
                called = isinstance(value, ast.Lambda) and is_only_called(function, name)
                stays = is_known(value) or called or _is_argument(value, function, changing)
                alias = value.id if isinstance(value, ast.Name) else ""
                if stays and changing[name] == 1 and not {name, alias} & inner:
                    Given({name: value}).visit(function)
                    break


def split_answers(world: World) -> None:
    """`x = f()` as two statements where f, if it comes back at all, gives one constant."""
    for node in walk(world.tree):
        for block in blocks_of(node):
            for i in range(len(block) - 1, -1, -1):
                for name, value in assigned_in(block[i]):
                    called = word_of(value.func) if isinstance(value, ast.Call) else ""
                    answer = _only_answer(world.functions.get(called))
                    if answer is not None:
                        target = ast.Name(name, ast.Store())
                        block[i : i + 1] = [ast.Expr(value), ast.Assign([target], answer)]


def _only_answer(function: ast.FunctionDef | None) -> ast.expr | None:
    """What a function returns wherever it does, if that is one constant and its last word."""
    ends = [n for n in walk(function) if isinstance(n, ast.Return)] if function else []
    values = {ast.dump(end.value) for end in ends if end.value is not None}
    last = ends and function is not None and isinstance(function.body[-1], ast.Return)
    nested = function is not None and len(functions_in(function)) > 1
    value = ends[0].value if last and len(values) == 1 and not nested else None
    known = value is not None and is_known(value) and all(end.value for end in ends)
    return copied(value) if known and value is not None else None


def split_pairs(world: World) -> None:
    """`a, b = 1, x` as two statements where one of them may go."""
    for node in walk(world.tree):
        for block in blocks_of(node):
            for i in range(len(block) - 1, -1, -1):
                parts = pairs_of(block[i])
                if any(
                    is_known(value) or isinstance(value, ast.Lambda) or _is_idle(world, t, node)
                    for t, value in parts
                ):
                    block[i : i + 1] = [ast.Assign([t], value) for t, value in parts]


def settled_parameters(world: World) -> None:
    """Parameters that no call sets, or all to the same constant, or that nobody reads."""
    for calls, function, hidden in world.callables():
        names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)][hidden:]
        defaults = defaults_of(function.args)
        bound = [bind(call, [(n, defaults.get(n)) for n in names]) for call in calls]
        if not bound or any(one is None for one in bound) or function.args.vararg:
            continue
        changing = stores_of(function)
        inner = set(bound_inside(function))
        read = Counter(n.id for n in walk_all(function.body) if isinstance(n, ast.Name))
        for name in names:
            given = [one[name] for one in bound if one is not None]
            if any(value is None or not is_pure_or_made(value) for value in given):
                continue
            first = given[0]
            assert first is not None
            same = len({ast.dump(value) for value in given if value}) == 1
            if same and changing[name] and is_known(first):
                changing[name] -= _never_stored(function, name, first)
            same = same and (is_known(first) or _is_defined(world, first, function, name))
            if same and name not in inner and not changing[name]:
                for i, part in enumerate(function.body):
                    function.body[i] = Given({name: first}).visit(part)
            elif read[name]:
                continue
            drop(function.args, name)
            for call in calls:
                drop_argument(call, names, name)
            names = [other for other in names if other != name]


def settled_attributes(world: World) -> None:
    """Attributes that are set to one constant wherever they are set."""
    given: dict[str, list[ast.expr | None]] = {}
    for _, fields, calls in world.records():
        bound = [bind(call, fields) for call in calls] if calls is not None else [None]
        for one in bound:
            for field, _ in fields:
                given.setdefault(field, []).append(one[field] if one else None)
    for kind in world.classes.values():
        if not is_record(kind):
            for part in kind.body:
                for name, value in assigned_in(part):
                    given.setdefault(name, []).append(value)
                if isinstance(part, ast.AnnAssign) and part.value is not None:
                    given.setdefault(field_name(part), []).append(part.value)
    plain = {id(t): v for n in walk(world.tree) for t, v in set_attributes(n)}
    for node in walk(world.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            given.setdefault(node.attr, []).append(plain.get(id(node)))
        elif isinstance(node, ast.Call) and called_name(node) == "replace":
            for keyword in node.keywords:
                given.setdefault(keyword.arg or "", []).append(keyword.value)
    settled = {
        name: values[0]
        for name, values in given.items()
        if name not in FOREIGN
        and name not in world.methods
        and all(value is not None and is_known(value) for value in values)
        and len({ast.dump(value) for value in values if value}) == 1
    }
    Attributes(world, settled).visit(world.tree)


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
        elif [d.id for d in names_in(found[0][1].decorator_list)] == ["property"]:
            properties[name] = value
    Attributes(world, properties).visit(world.tree)
    Answered(world, names, methods).visit(world.tree)


def inlined(world: World) -> None:
    """Functions of one expression that are called in one place stand there; what only gives back
    what it was given stands nowhere."""
    for node in walk(world.tree):
        for block in blocks_of(node):
            _return_at_once(block)
    instead = dict[int, ast.expr]()
    for calls, function, hidden in world.callables():
        part = function.body[0]
        if _gives_back(function, hidden):
            instead |= {id(call): call.args[0] for call in calls if _is_plain(call)}
        if len(calls) != 1 or len(function.body) > 1 or not isinstance(part, ast.Return):
            continue
        given = _given_once(calls[0], function, hidden)
        if given is not None and part.value is not None:
            value = Given(given).visit(copied(part.value))
            instead[id(calls[0])] = value
    Replaced(instead).visit(world.tree)


def _is_plain(call: ast.Call) -> bool:
    """One argument, and nothing computed before it."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    return len(call.args) == 1 and not call.keywords and isinstance(owner, ast.Name)


def _gives_back(function: ast.FunctionDef, hidden: int) -> bool:
    """Whether it is `def f(x): return x`, behind its hidden arguments."""
    names = [a.arg for a in arguments_of(function.args)][hidden:]
    end = function.body[0]
    returned = word_of(end.value) if isinstance(end, ast.Return) and end.value else ""
    return names == [returned] and not function.args.vararg and not function.args.kwarg


def _return_at_once(block: list[ast.stmt]) -> None:
    """`x = y; return x` as `return y`."""
    for i in range(len(block) - 1, 0, -1):
        end, before = block[i], assigned_in(block[i - 1])
        returned = word_of(end.value) if isinstance(end, ast.Return) and end.value else ""
        if before and before[0][0] == returned:
            block[i - 1 : i + 1] = [ast.Return(before[0][1])]


def _given_once(
    call: ast.Call, function: ast.FunctionDef, hidden: int
) -> dict[str, ast.expr] | None:
    """What to put for each parameter, where the expression means the same behind it."""
    every = arguments_of(function.args)
    defaults = defaults_of(function.args)
    bound = bind(call, [(a.arg, defaults.get(a.arg)) for a in every[hidden:]])
    if bound is None or is_partial(call) or function.args.vararg or function.decorator_list:
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
    inner = {*bound_inside(function)}
    named = {n.id for value in given.values() for n in walk(value) if isinstance(n, ast.Name)}
    return given if fits and not inner & named else None


def unused(world: World) -> None:
    """Definitions, methods, fields, attributes and variables that nobody asks for."""
    _unread_fields(world)
    _unread_locals(world)
    for node in walk(world.tree):
        for block in blocks_of(node):
            block[:] = [part for part in block if not _sets_unread(world, part)]
    for kind in world.classes.values():
        kind.body = [part for part in kind.body if not _is_unasked(world, kind, part)]
    world.tree.body = [
        part for part in world.tree.body if not _is_unnamed(part, world.names, world.kept)
    ]
    tidy(world.tree)


def _unread_fields(world: World) -> None:
    for name, fields, calls in world.records():
        kind = world.classes[name]
        if calls is None or "dataclass" not in decorators_of(kind) or _is_read_whole(world, name):
            continue
        for field, _ in fields:
            if world.asked[field] or field in world.words:
                continue
            given = [bind(call, fields) for call in calls]
            changed = [k for c in world.calls if called_name(c) == "replace" for k in c.keywords]
            again = [k.value for k in changed if k.arg == field]
            if all(one is not None and is_pure(one[field]) for one in given) and all(
                map(is_pure, again)
            ):
                for call in world.calls:
                    if called_name(call) == "replace":
                        call.keywords = [k for k in call.keywords if k.arg != field]
                names = [other for other, _ in fields]
                for call in calls:
                    drop_argument(call, names, field)
                fields = [pair for pair in fields if pair[0] != field]
                kind.body = [part for part in kind.body if field_name(part) != field]


def _unread_locals(world: World) -> None:
    for function in functions_in(world.tree):
        if isinstance(function, ast.Lambda):
            continue
        read = {n.id for n in walk(function) if isinstance(n, ast.Name) and is_read(n)}
        read |= {word_of(n.target) for n in walk(function) if isinstance(n, ast.AugAssign)}
        for node in own_nodes(function):
            for block in blocks_of(node):
                raises = isinstance(block[-1] if block else None, ast.Raise)
                block[:] = [_without_target(part, read, raises) for part in block]


def _without_target(part: ast.stmt, read: set[str], raises: bool) -> ast.stmt:
    """Without a variable that nobody reads; before an error it was for its words alone."""
    idle = [name for name, _ in assigned_in(part) if name not in read]
    if not idle or not isinstance(part, ast.Assign):
        return part
    return ast.Pass() if raises or is_pure_or_made(part.value) else ast.Expr(part.value)


def _sets_unread(world: World, part: ast.stmt) -> bool:
    """self.x = y, and self.x += y, where nobody reads x."""
    if isinstance(part, ast.AugAssign) and isinstance(part.target, ast.Attribute):
        return is_pure(part.value) and _is_unread(world, part.target)
    if not isinstance(part, ast.Assign) or len(part.targets) > 1:
        return False
    if not is_pure_or_made(part.value) and not _is_answer(world, part.value):
        return False
    target = part.targets[0]
    return isinstance(target, ast.Attribute) and _is_unread(world, target)


def _is_answer(world: World, value: ast.expr) -> bool:
    """What a function of the module gives: what is kept was asked for no other end."""
    asked = isinstance(value, ast.Call) and word_of(value.func) in world.functions
    return asked and isinstance(value, ast.Call) and all(map(is_pure, value.args))


def _is_unread(world: World, target: ast.Attribute) -> bool:
    own = world.own(target) and target.attr not in FOREIGN
    return own and not world.asked[target.attr] and target.attr not in world.words


def _is_idle(world: World, target: ast.expr, scope: ast.AST) -> bool:
    if isinstance(target, ast.Attribute):
        return _is_unread(world, target)
    if not isinstance(target, ast.Name):
        return False
    names = (n for n in walk(scope) if isinstance(n, ast.Name) and is_read(n))
    return isinstance(scope, ast.FunctionDef) and all(n.id != target.id for n in names)


def _is_unasked(world: World, kind: ast.ClassDef, part: ast.stmt) -> bool:
    if isinstance(part, ast.FunctionDef):
        special = part.name.startswith("__") or part.name == "forward"
        return not (special or world.asked[part.name] or part.name in world.words)
    names = [name for name, _ in assigned_in(part)]
    if not is_record(kind) and isinstance(part, ast.AnnAssign):
        names = [field_name(part)]
    return bool(names) and not any(
        world.asked[n] or n in world.words or n in FOREIGN for n in names
    )


def _is_unnamed(part: ast.stmt, names: Counter[str], kept: Collection[str]) -> bool:
    if isinstance(part, ast.FunctionDef | ast.ClassDef):
        return not names[part.name] and part.name not in kept
    if isinstance(part, ast.Import | ast.ImportFrom):
        return not names[part.names[0].asname or part.names[0].name.split(".")[0]]
    # Nothing is done for its effect at import.
    return isinstance(part, ast.Assign) and not any(names[name] for name in stored([part]))


def _is_read_whole(world: World, name: str) -> bool:
    """Its fields are asked for by a function that reads any, or by names that are made up."""
    asked = [n for n in walk(world.classes[name]) if isinstance(n, ast.Call)]
    made_up = any(called_name(n) == "getattr" and not is_known(n.args[1]) for n in asked)
    return made_up or ("asdict" in world.asked and name in ("Row", "Stream"))


def _only_value(function: ast.FunctionDef) -> ast.expr | None:
    body = function.body
    if len(body) != 1 or (isinstance(body[0], ast.Return) and body[0].value is None):
        return ast.Constant(None) if len(body) == 1 else None
    if isinstance(body[0], ast.Pass):
        return ast.Constant(None)
    value = body[0].value if isinstance(body[0], ast.Return) else None
    return value if value is not None and is_known(value) else None


def _is_defined(world: World, value: ast.expr | None, function: ast.FunctionDef, name: str) -> bool:
    """A function or class of the module, whose name means the same inside `function`."""
    if not isinstance(value, ast.Name) or value.id not in {**world.functions, **world.classes}:
        return False
    local = {*stores_of(function), *bound_inside(function)}
    others = {a.arg for a in arguments_of(function.args)} - {name}
    return value.id not in local | others


def _never_stored(function: ast.FunctionDef, name: str, value: ast.expr | None) -> int:
    """How often a name that begins as `value` is set where that rules it out."""
    count = 0
    for node in walk(function):
        if isinstance(node, ast.If) and not node.orelse and value is not None:
            test = Given({name: value}).visit(copied(node.test))
            if truth(Constants().visit(test)) is False:
                names = [n for part in node.body for n in walk(part) if isinstance(n, ast.Name)]
                count += sum(n.id == name and not is_read(n) for n in names)
    return count


def _is_flat(table: ast.Dict) -> bool:
    """Nothing in it can be changed through it; one without anything is to be filled."""
    held = bool(table.values) and all(
        is_known(v) or isinstance(v, ast.Lambda | ast.Call) for v in table.values
    )
    return held and is_pure(table)


def _is_argument(value: ast.expr, function: ast.FunctionDef, changing: Counter[str]) -> bool:
    names = [argument.arg for argument in arguments_of(function.args)]
    return isinstance(value, ast.Name) and value.id in names and not changing[value.id]
