"""The English text that every Python installation carries: docstrings and help topics."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "idle_test"}


def documents() -> list[str]:
    """One document a help topic and one a module, in an order that is mixed and never changes."""
    texts = [*_topics(), *_modules(Path(sysconfig.get_paths()["stdlib"]))]
    if not texts:
        raise ValueError("this Python carries no docstrings; name your own text with --text")
    step = next(n for n in (577, 211, 89, 1) if len(texts) % n or n == 1)  # coprime: a stride
    return [texts[i * step % len(texts)] for i in range(len(texts))]


def _topics() -> Iterator[str]:
    from pydoc_data.topics import topics

    for _, text in sorted(topics.items()):
        yield text


def _modules(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        if SKIPPED.isdisjoint(path.relative_to(root).parts):
            text = _docstrings(path)
            if len(text) > 200:
                yield text


def _docstrings(path: Path) -> str:
    """A file's docstrings, read without importing it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text)
