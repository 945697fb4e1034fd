"""The script of a records folder: decoded without running it, and what it would reach beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from core.data.findings import Finding
from core.score.rules import found
from tools.checks.folder import Folder
from tools.strangers.packed import MAX_FILE_BYTES, Unpacked, unpack_script
from tools.strangers.script_source import parse

SCRIPT = "train_gpt.py"
NETWORK = {
    *("requests", "httpx", "aiohttp", "ftplib", "urllib3", "wget", "smtplib", "paramiko"),
    *("urllib.request", "http.client", "boto3"),
}
PERHAPS_NETWORK = {"socket", "huggingface_hub", "datasets", "kernels", "wandb", "hf_transfer"}
# What every Linux has and no submission can hide anything in.
HARMLESS = re.compile(r"/(dev/(null|shm|stdout|stderr|urandom)|proc/|sys/|usr/bin/env|bin/)")
_ABSOLUTE = re.compile(r"(/[\w.@+-]+){2,}/?|~/.*|[A-Za-z]:\\.+")
_ABOVE = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_READERS = {
    *("open", "Path", "PurePath", "fromfile", "memmap", "load", "loadtxt", "genfromtxt", "glob"),
    *("iglob", "listdir", "scandir", "walk", "chdir", "run", "Popen", "system", "check_output"),
    *("call", "read_text", "read_bytes", "load_file", "safe_open", "SentencePieceProcessor"),
    *("import_module", "spec_from_file_location", "run_path", "CDLL", "load_library", "copy"),
    *("symlink", "copyfile", "realpath", "joinpath", "join", "insert", "append"),
}


def check_script(folder: Folder) -> tuple[Unpacked | None, list[Finding]]:
    """The script's innermost source, where it can be told, and its two rules."""
    entry = folder.file(SCRIPT)
    if entry is None:
        return None, [found("script", "FAIL", SCRIPT, "missing")]
    try:
        script = unpack_script(folder.read(entry, MAX_FILE_BYTES + 1), SCRIPT)
    except (ValueError, OSError) as error:
        return None, [found("script", "FAIL", SCRIPT, f"{error!s:.300}")]
    how = " in ".join(layer.method for layer in script.layers) or "not packed"
    findings = [
        found("script", "UNDECIDED", SCRIPT, f"only running would tell: {said:.200}")
        for said in script.unresolved[:20]
    ]
    if not findings:
        size = sum(len(module.source.encode("utf-8", "replace")) for module in script.modules)
        findings.append(found("script", "PASS", SCRIPT, f"{how}, {size:,} bytes of source"))
    return script, [*findings, *_self_contained(script)]


def names_in(script: Unpacked) -> str:
    """All source of a script as one text, to look for the names of other files."""
    return "\n".join(module.source for module in script.modules)


def _self_contained(script: Unpacked) -> Iterator[Finding]:
    told: dict[tuple[str, str], Finding] = {}
    for module in script.modules:
        try:
            tree = parse(module.source).tree
        except ValueError as error:
            said = f"{module.name}: {error!s:.200}"
            told[module.name, ""] = found("self-contained", "UNDECIDED", SCRIPT, said)
            continue
        for finding in (*_imports(tree), *_paths(tree)):
            told.setdefault((finding.status, finding.evidence), finding)
    yield from list(told.values())[:50]
    if script.unresolved:
        said = "part of the source cannot be told without running it"
        yield found("self-contained", "UNDECIDED", SCRIPT, said)
    elif not told:
        said = "no path outside of the folder and no network in its source"
        yield found("self-contained", "PASS", SCRIPT, said)


def _imports(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
        for name in names:
            if name in NETWORK or name.split(".")[0] in NETWORK:
                said = f"line {node.lineno} imports {name}, which is for the network"
                yield found("self-contained", "FAIL", SCRIPT, said)
            elif name.split(".")[0] in PERHAPS_NETWORK and "." not in name:
                said = f"line {node.lineno} imports {name}, which can use the network"
                yield found("self-contained", "UNDECIDED", SCRIPT, said)


def _paths(tree: ast.Module) -> Iterator[Finding]:
    """Paths outside of the folder among the texts: read, or only named."""
    read = _read_texts(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        text = node.value
        if len(text) > 400 or "\n" in text or not outside(text):
            continue
        if id(node) in read:
            said = f"line {node.lineno} reads {text[:120]!r}, outside of the folder"
            yield found("self-contained", "FAIL", SCRIPT, said)
        else:
            said = f"line {node.lineno} names {text[:120]!r}, outside of the folder"
            yield found("self-contained", "UNDECIDED", SCRIPT, said)


def outside(text: str) -> bool:
    """Whether a text is a path that leaves the folder."""
    if HARMLESS.match(text):
        return False
    return bool(_ABSOLUTE.fullmatch(text) or (_ABOVE.search(text) and " " not in text))


def _read_texts(tree: ast.Module) -> set[int]:
    """The texts within calls that open, list, run or import what they name."""
    texts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node.func) in _READERS:
            arguments = [*node.args, *(word.value for word in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                arguments.append(node.func.value)
            for argument in arguments:
                texts.update(id(n) for n in ast.walk(argument) if isinstance(n, ast.Constant))
    return texts


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def is_named(path: str, source: str) -> bool:
    """Whether the source says a file's name, or imports it or the folder that it lies in."""
    pure = PurePosixPath(path)
    if pure.name in source:
        return True
    modules = {*pure.parts[:-1], *([pure.stem] if len(pure.parts) == 1 else [])} - {"."}
    names = "|".join(re.escape(name) for name in modules)
    return (
        re.search(rf"(?m)(^|;)\s*(import|from)\b[^\n;]*(?<![\w.])({names})\b", source) is not None
    )
