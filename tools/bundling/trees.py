"""Small questions about syntax trees: who is set, called or bound where."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator

from tools.bundling.constants import is_pure, walk
from tools.bundling.flatten import COMPREHENSIONS, arguments_of, stored

Field = tuple[str, ast.expr | None]  # name, default


def functions_in(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in walk(tree) if isinstance(node, ast.FunctionDef)]


def own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The function and its statements, without those of functions inside it."""
    waiting: list[ast.AST] = [function]
    while waiting:
        node = waiting.pop()
        yield node
        for block in blocks_of(node):
            waiting += [p for p in block if not isinstance(p, ast.FunctionDef | ast.ClassDef)]
        waiting += getattr(node, "handlers", [])


def own_statements(function: ast.FunctionDef) -> list[ast.stmt]:
    return [node for node in own_nodes(function) if isinstance(node, ast.stmt)]


def stores_of(function: ast.FunctionDef) -> Counter[str]:
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


def bound_inside(function: ast.FunctionDef) -> Iterator[str]:
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


def assigned_in(node: ast.stmt) -> list[tuple[str, ast.expr]]:
    """x = value."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        if isinstance(target, ast.Name):
            return [(target.id, node.value)]
    return []


def set_attributes(node: ast.AST) -> list[tuple[ast.Attribute, ast.expr]]:
    if not isinstance(node, ast.Assign):
        return []
    pairs = pairs_of(node) or [(target, node.value) for target in node.targets]
    return [(target, value) for target, value in pairs if isinstance(target, ast.Attribute)]


def pairs_of(node: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
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
        words = {word_of(n) for n in walk(before)} - {"", "self"}
        if words & {word_of(n) for _, v in pairs[i + 1 :] for n in walk(v)}:
            return []
    return pairs


def word_of(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def blocks_of(node: ast.AST) -> list[list[ast.stmt]]:
    found = (getattr(node, name, None) for name in ("body", "orelse", "finalbody"))
    return [block for block in found if isinstance(block, list)]


def walk_all(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from walk(node)


def is_record(kind: ast.ClassDef) -> bool:
    return "dataclass" in decorators_of(kind) or any(
        b.id == "NamedTuple" for b in names_in(kind.bases)
    )


def decorators_of(kind: ast.ClassDef) -> set[str]:
    parts = [d.func if isinstance(d, ast.Call) else d for d in kind.decorator_list]
    return {name.id for name in names_in(parts)}


def field_name(part: ast.stmt) -> str:
    return getattr(part.target, "id", "") if isinstance(part, ast.AnnAssign) else ""


def is_partial(call: ast.Call) -> bool:
    return called_name(call) == "partial"


def called_name(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def names_in(nodes: Iterable[ast.AST]) -> list[ast.Name]:
    return [node for node in nodes if isinstance(node, ast.Name)]


def is_read(node: ast.Name | ast.Attribute | ast.Subscript) -> bool:
    return isinstance(node.ctx, ast.Load)


def bind(call: ast.Call, fields: Iterable[Field]) -> dict[str, ast.expr | None] | None:
    """What a call gives each parameter; None where that cannot be told."""
    if any(not k.arg for k in call.keywords):
        return None
    bound, args = dict(fields), call.args[is_partial(call) :]
    starred = [i for i, argument in enumerate(args) if isinstance(argument, ast.Starred)]
    if starred or is_partial(call):  # the rest is given elsewhere
        bound = dict.fromkeys(bound)
    bound |= dict(zip(list(bound), args[: (starred or [len(args)])[0]], strict=False))
    bound |= {k.arg: k.value for k in call.keywords if k.arg}
    return bound


def drop_argument(call: ast.Call, names: list[str], name: str) -> None:
    at = names.index(name) + is_partial(call)
    del call.args[at : at + 1]
    call.keywords = [keyword for keyword in call.keywords if keyword.arg != name]


def defaults_of(args: ast.arguments) -> dict[str, ast.expr]:
    found = dict(zip([a.arg for a in args.args][::-1], args.defaults[::-1], strict=False))
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return found | {a.arg: value for a, value in pairs if value is not None}


def drop(args: ast.arguments, name: str) -> None:
    for i, argument in enumerate(args.args):
        if argument.arg == name:
            from_end = len(args.args) - i
            if from_end <= len(args.defaults):
                del args.defaults[len(args.defaults) - from_end]
            del args.args[i]
            return
    at = [argument.arg for argument in args.kwonlyargs].index(name)
    del args.kwonlyargs[at], args.kw_defaults[at]


def is_only_called(function: ast.FunctionDef, name: str) -> bool:
    """Whether each mention of a variable calls it."""
    called = [n.func for n in walk(function) if isinstance(n, ast.Call)]
    mentions = [n for n in walk(function) if isinstance(n, ast.Name) and n.id == name]
    return all(n in called for n in mentions if is_read(n))
