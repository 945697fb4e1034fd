"""What the names of a source stand for: modules under other names, texts that are assigned once."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_PARTS = 12  # of a dotted name, and of a chain of names


@dataclass(frozen=True, kw_only=True)
class Names:
    """`aliases` of modules and functions by their whole names; `values` of what is bound once."""

    aliases: Mapping[str, str]
    values: Mapping[str, ast.expr]
    heads: dict[int, Any] = field(default_factory=dict)  # of expressions that were looked at

    def dotted(self, node: ast.AST, room: int = MAX_PARTS) -> str:
        """os.system for t.system behind `import os as t`; empty where it has no such name."""
        if room <= 0:
            return ""
        if isinstance(node, ast.Name):
            if node.id in self.aliases:
                return self.aliases[node.id]
            bound = self.values.get(node.id)
            other = isinstance(bound, ast.Name | ast.Attribute | ast.Call)
            return (self.dotted(bound, room - 1) if bound and other else "") or node.id
        if isinstance(node, ast.Attribute):
            held = self.dotted(node.value, room - 1)
            return f"{held}.{node.attr}"[:200]
        return self._made(node, room) if isinstance(node, ast.Call) else ""

    def _made(self, node: ast.Call, room: int) -> str:
        """The module of an import by call, and what getattr takes under a name that is told."""
        name = self.dotted(node.func, room - 1)
        texts = [x.value if isinstance(x, ast.Constant) else None for x in node.args]
        if name in ("__import__", "importlib.import_module") and texts:
            return texts[0] if isinstance(texts[0], str) else ""
        if name == "getattr" and len(texts) > 1 and isinstance(texts[1], str):
            return f"{self.dotted(node.args[0], room - 1)}.{texts[1]}"[:200]
        return ""


def bound_names(tree: ast.Module) -> Names:
    """The imports of a source, and the names that it assigns in just one place."""
    aliases: dict[str, str] = {}
    values: dict[str, ast.expr] = {}
    times: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                aliases[one.asname or one.name.split(".")[0]] = (
                    one.name if one.asname else one.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                aliases[one.asname or one.name] = f"{node.module or ''}.{one.name}"
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            if isinstance(target := node.targets[0], ast.Name):
                values[target.id] = node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            if isinstance(node.target, ast.Name) and node.value is not None:
                values[node.target.id] = node.value
        elif isinstance(node, ast.arg):
            times[node.arg] += 2  # it may be anything
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            times[node.id] += 1
    once = {name: value for name, value in values.items() if times[name] == 1}
    return Names(aliases=aliases, values=once)
