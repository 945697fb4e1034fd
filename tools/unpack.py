"""The source of a packed script or of a records folder; decodes, and executes nothing."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.say import UsageError, complain, note, print_json
from tools.strangers.bounded import Budget
from tools.strangers.packed import LIMIT_BYTES, MAX_FILE_BYTES, Module, Unpacked, unpack_script

MAX_SCRIPTS = 64  # of a folder
MAX_FOLDERS = 1000  # below it
_SAFE = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_\-.]{0,99}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, nargs="?", help="a script, or a folder that holds some")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write one file for each module")
    parser.add_argument(
        "--diff", type=Path, nargs=2, metavar=("A", "B"), help="compare the source of two"
    )
    parser.add_argument("--json", action="store_true", help="layers, as one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if (args.path is None) == (args.diff is None):
        raise UsageError("give one script or folder, or --diff A B")
    if args.diff and args.out:
        raise UsageError("--out is for the source of one; --diff A B > FILE keeps a comparison")
    if args.diff:
        return _diff(args.diff, args.json)
    found = unpack_path(args.path)
    written = _write(all_modules(found), args.out) if args.out else []
    if args.json:
        print_json({**as_json(found), "written": [str(path) for path in written]})
    elif args.out:
        sys.stdout.writelines(f"{path}\n" for path in written)
    else:
        sys.stdout.write(text_of_modules(all_modules(found)))
    return _told(found)


def unpack_path(path: Path) -> list[Unpacked]:
    """Each script at a path: of a file that file, of a folder every .py file, in name order."""
    if path.is_file():
        return [unpack_script(_bytes(path), path.name)]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder")
    scripts = sorted(_scripts(path))
    if not scripts:
        raise ValueError(f"{path}: a folder without a .py file; expected a script in it")
    budget = Budget(LIMIT_BYTES)
    return [unpack_script(_bytes(one), one.relative_to(path).as_posix(), budget) for one in scripts]


def _scripts(root: Path) -> list[Path]:
    """The .py files below a folder, but for hidden folders; links are not followed."""
    found: list[Path] = []
    for at, (place, folders, names) in enumerate(os.walk(root)):
        folders[:] = [one for one in folders if not one.startswith((".", "__pycache__"))]
        paths = [Path(place) / name for name in names if name.endswith(".py")]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) > MAX_SCRIPTS or at > MAX_FOLDERS:
            many = f"more than {MAX_SCRIPTS} scripts or {MAX_FOLDERS} folders"
            raise ValueError(f"{root}: {many}; name the script, or the folder that holds it")
    return found


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def all_modules(found: Sequence[Unpacked]) -> list[Module]:
    """The code of all scripts; of several scripts, each with its script's name before it."""
    if len(found) == 1:
        return list(found[0].sources)
    named = []
    for one in found:
        stem = one.subject.removesuffix(".py")
        for module in one.sources:
            name = stem if module.name == Path(stem).name else f"{stem}/{module.name}"
            named.append(Module(name=name, source=module.source))
    return named


def text_of_modules(modules: Sequence[Module]) -> str:
    """One source text: of one module as it is, of several each behind a line that names it."""
    if len(modules) == 1:
        return _printable(modules[0].source)
    parts = []
    for module in modules:
        end = "" if module.source.endswith("\n") else "\n"
        parts.append(f"# --- {_line(module.name)} ---\n{_printable(module.source)}{end}")
    return "".join(parts)


def as_json(found: Sequence[Unpacked]) -> dict[str, Any]:
    return {
        "scripts": [one.subject for one in found],
        "layers": [{"script": one.subject, **asdict(row)} for one in found for row in one.layers],
        "modules": [
            {"name": module.name, "bytes": len(module.source.encode("utf-8", "surrogateescape"))}
            for module in all_modules(found)
        ],
        "unresolved": [sentence for one in found for sentence in one.unresolved],
    }


def safe_name(name: str) -> str:
    """A file name within the folder it is written to, whatever a stranger calls a module."""
    whole = re.sub(r"[/\\]+", ".", name.removesuffix(".py"))
    short = re.sub(r"[^A-Za-z0-9_.\-]", "_", whole).strip(".")[:90]
    return f"{short if _SAFE.fullmatch(short) else 'module'}.py"


def _write(modules: Sequence[Module], folder: Path) -> list[Path]:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; expected a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    written: list[Path] = []
    for module in modules:
        stem = safe_name(module.name).removesuffix(".py")
        name, number = f"{stem}.py", 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}.py", number + 1
        taken.add(name.lower())
        (folder / name).write_text(_printable(module.source), encoding="utf-8", newline="")
        written.append(folder / name)
    return written


def _diff(paths: Sequence[Path], as_data: bool) -> int:
    """0 where both are the same source, 1 where they differ or cannot be told."""
    found = [unpack_path(path) for path in paths]
    texts = [text_of_modules(all_modules(one)).splitlines(keepends=True) for one in found]
    names = [str(path) for path in paths]
    lines = list(difflib.unified_diff(texts[0], texts[1], names[0], names[1]))
    whole = [x if x.endswith("\n") else f"{x}\n\\ No newline at end of file\n" for x in lines]
    if as_data:
        sides = dict(zip("ab", map(as_json, found), strict=True))
        print_json({"same": not lines, "diff": "".join(whole), **sides})
    else:
        sys.stdout.writelines(whole)
    if not lines:
        note(f"{names[0]} and {names[1]} hold the same source")
    open_ends = [_told(one) for one in found]
    return 1 if lines or any(open_ends) else 0


def _told(found: Sequence[Unpacked]) -> int:
    """What stays open goes to stderr, and makes 1 of the exit code."""
    for one in found:
        if one.loader_bytes and not one.loaders:
            note(f"{one.subject}: packed; {one.loader_bytes:,} bytes of loader, which only decode")
        for sentence in one.unresolved:
            complain(_line(sentence))
    return int(any(one.unresolved for one in found))


def _printable(text: str) -> str:
    """Text that any terminal's encoding can hold lone surrogates of."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "?", text)[:300]
