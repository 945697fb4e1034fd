"""The parts of README.md that the code knows: python -m tests.readme writes them anew."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.walkthrough import commands

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PATH = re.compile(r"(## The whole path\n.*?\n```\n).*?(```\n)", re.S)
TREE = re.compile(r"(## The tree\n\n```\n).*?(```\n)", re.S)
FOLDERS = ("core", "backend_torch", "tools", "tests")
OTHERS = {
    "Makefile": "demo, test, test-slow, check, device-check",
    "constraints.txt": "the versions that CI tests",
    ".ci/run": "what CI runs: make test, make test-slow",
}
WIDTH = 30


def tree() -> str:
    """Every source file with the first sentence of its docstring; the mirrored files once."""
    lines: list[str] = []
    for folder in FOLDERS:
        lines += branch(ROOT / folder)
    for name in ("train_torch.py", "train_mlx.py"):
        lines.append(leaf(name, ROOT / name, 0))
    lines += [f"{name:<{WIDTH}}{phrase}" for name, phrase in OTHERS.items()]
    return "\n".join(lines) + "\n"


def branch(folder: Path, depth: int = 0) -> list[str]:
    """A package: its own phrase, its files, its packages."""
    name = folder.name + "/"
    if folder.name == "backend_torch":
        name = "backend_torch/ backend_mlx/"
    phrase = first_sentence(folder / "__init__.py")
    if folder.name == "backend_torch":
        phrase = "the same files on both sides, mirrored line by line"
    lines = [f"{'  ' * depth + name:<{WIDTH}}{phrase}".rstrip()]
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(leaf(path.name, path, depth + 1))
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        lines += branch(inner, depth + 1)
    return lines


def leaf(name: str, path: Path, depth: int) -> str:
    return f"{'  ' * depth + name:<{WIDTH}}{first_sentence(path)}"


def first_sentence(path: Path) -> str:
    """The docstring's first line without its last stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0].rstrip(".").replace(" in PyTorch", "")


def with_tree(text: str) -> str:
    return TREE.sub(lambda found: found[1] + tree() + found[2], text)


def with_path(text: str) -> str:
    return PATH.sub(lambda found: found[1] + commands() + found[2], text)


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(with_path(with_tree(text)), encoding="utf-8")
