"""Write the file that lets a script's scorer be audited: two functions to fill, and where to look.

The script is read, unpacked where it is packed, and never run.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tools.auditing.adapter import MARK, TEMPLATE
from tools.say import UsageError, note
from tools.strangers.packed import MAX_FILE_BYTES, Unpacked, unpack_script
from tools.strangers.script_source import parse

SHOWN = 12  # of each kind
_SCORES = re.compile(r"eval|score|valid|ttt|adapt|slid|slot|ngram|n_gram|cache|mix|ppm|tent", re.I)
_LOADS = re.compile(r"load|dequant|decompress|unpack|deserial|restore", re.I)
_FILES = re.compile(r"[\w./{}*-]{1,80}\.(?:ptz|pt|bin|safetensors|npz|model|zst|xz|br|lzma)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", type=Path, metavar="SCRIPT", help="a train_gpt.py")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: stdout)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.script.is_file():
        raise UsageError(f"{args.script}: no such script")
    if args.out and args.out.exists():
        raise UsageError(f"{args.out} is there already; name another file")
    text = adapter(args.script)
    if not args.out:
        print(text, end="")
        return 0
    args.out.write_text(text, encoding="utf-8")
    note(f"{args.out}: fill in start() and score(), then")
    note(f"  golf audit scorer {args.out} --run --data DIR --tokenizer MODEL")
    return 0


def adapter(script: Path) -> str:
    """The file's text."""
    with script.open("rb") as file:
        found = unpack_script(file.read(MAX_FILE_BYTES + 1), script.name)
    seen = "\n".join(f"# {line}".rstrip() for line in _seen(found, script))
    return TEMPLATE.replace(MARK, seen + "\n")


def _seen(found: Unpacked, script: Path) -> Iterator[str]:
    """What a reader of the script would look at first."""
    yield f"What {script.name} holds, read and not run:"
    if found.layers:
        yield f"  It is packed. `golf unpack {script.name} --out source` writes what can be"
        yield "  imported; put the adapter beside it."
    for why in found.unresolved:
        yield f"  not read: {_plain(why)}"
    for module in found.modules:
        try:
            tree = parse(module.source).tree
        except ValueError as error:
            yield f"  {_plain(module.name)}: {_plain(str(error))}"
            continue
        yield from _of_module(tree, module.name)


def _of_module(tree: ast.Module, name: str) -> Iterator[str]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    kinds = {
        "models (classes with forward)": [*_models(tree)],
        "scoring and adapting": [_signature(f) for f in functions if _SCORES.search(f.name)],
        "loading": [_signature(f) for f in functions if _LOADS.search(f.name)],
        "files that it names": sorted({*_files(tree)}),
        "run when it is imported": [*_at_import(tree)],
    }
    for kind, lines in kinds.items():
        if lines:
            yield f"  {_plain(name)}, {kind}:"
            yield from (f"    {_plain(line)}" for line in lines[:SHOWN])
        if len(lines) > SHOWN:
            yield f"    and {len(lines) - SHOWN} more"


def _models(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
            if methods & {"forward", "__call__"}:
                yield f"class {node.name}, line {node.lineno}"


def _files(tree: ast.Module) -> Iterator[str]:
    """Texts that read as names of files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _FILES.findall(node.value[:1000])


def _signature(node: ast.FunctionDef) -> str:
    arguments = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
    return f"{node.name}({', '.join(arguments)}), line {node.lineno}"


def _at_import(tree: ast.Module) -> Iterator[str]:
    """Calls at the top of a module, outside of definitions and of a guard by __name__."""
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield f"{ast.unparse(node.value.func)}(...), line {node.lineno}"


def _plain(text: str) -> str:
    """A stranger's words on one line of a comment."""
    return "".join(c if c.isprintable() else "?" for c in text)[:90]
