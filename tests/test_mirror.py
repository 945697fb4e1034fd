"""The two backends have the same files, names, order and arguments; neither framework is needed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT, RIGHT = ROOT / "backend_torch", ROOT / "backend_mlx"
TORCH_ONLY = {"kernels"}
FILES = sorted(path.name for path in LEFT.glob("*.py"))


def outline(path: Path) -> list[str]:
    """Public classes, methods and functions in order, with argument names.

    forward and __call__ are one name.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    rows = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            rows.append(signature(node))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            rows.append(f"class {node.name}")
            rows += [f"{node.name}.{signature(m)}" for m in methods(node)]
    return rows


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    shown = {"__init__", "__call__"}
    found = [m for m in node.body if isinstance(m, ast.FunctionDef)]
    return [m for m in found if m.name in shown or not m.name.startswith("_")]


def signature(node: ast.FunctionDef) -> str:
    name = "call" if node.name in ("forward", "__call__") else node.name
    positional = [a.arg for a in node.args.posonlyargs + node.args.args]
    return f"{name}({', '.join(positional)} * {', '.join(a.arg for a in node.args.kwonlyargs)})"


def test_the_same_files() -> None:
    right = sorted(path.name for path in RIGHT.glob("*.py"))
    folders = {path.name for path in LEFT.iterdir() if path.is_dir()} - {"__pycache__"}
    assert right == FILES
    assert folders <= TORCH_ONLY


@pytest.mark.parametrize("name", FILES)
def test_the_same_outline(name: str) -> None:
    assert outline(LEFT / name) == outline(RIGHT / name)


@pytest.mark.parametrize("name", FILES)
def test_the_same_first_words(name: str) -> None:
    if name != "__init__.py":
        assert first_words(LEFT / name, "PyTorch") == first_words(RIGHT / name, "MLX")


def first_words(path: Path, framework: str) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.replace(framework, "X")
