"""The code of a records folder: decoded without running it, and what it would reach beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from core.data.findings import Finding, Status
from core.score.rules import found
from tools.checks.folder import Folder
from tools.checks.reach import reaches
from tools.strangers.bounded import Budget
from tools.strangers.packed import MAX_FILE_BYTES, Unpacked, unpack_script
from tools.strangers.script_source import parse

SCRIPT = "train_gpt.py"
MAX_HELPERS = 48  # beside the script that are read
MAX_HELPER_BYTES = 1_000_000  # of all together
HELPERS_UNPACK_TO = 1_000_000  # bytes, all together
MAX_REACHES = 3_000  # of one module
MAX_CHARACTERS = 2_000_000  # of a script in which other files are looked for
_LONG = re.compile(r"[^\s'\"]{400,}")
SHOWN = 50  # findings of one file


@dataclass(frozen=True, kw_only=True)
class Code:
    """The script, where it can be read; the Python files beside it; and which of these it names."""

    script: Unpacked | None = None
    helpers: Mapping[str, Unpacked] = field(default_factory=dict)
    named: frozenset[str] = frozenset()  # by the script, or by one that is named

    @cached_property
    def source(self) -> str:
        """All that may run as one text, to look for the names of other files."""
        ran = [held for path, held in self.helpers.items() if path in self.named]
        return "\n".join(map(names_in, [*([self.script] if self.script else []), *ran]))


def check_script(folder: Folder) -> tuple[Code, list[Finding]]:
    """The code where it can be told, and its two rules."""
    entry = folder.file(SCRIPT)
    if entry is None:
        return Code(), [found("script", "FAIL", SCRIPT, "missing")]
    try:
        script = unpack_script(folder.read(entry, MAX_FILE_BYTES + 1), SCRIPT)
    except (ValueError, OSError) as error:
        return Code(), [found("script", "FAIL", SCRIPT, f"{error!s:.300}")]
    helpers, broken = _helpers(folder)
    named = _named(script, helpers, broken)
    findings = [*_decoded(script), *_broken(broken, named)]
    reached = list(_self_contained(SCRIPT, script, True))
    for path, helper in helpers.items():
        reached += _self_contained(path, helper, path in named)
    if not reached:
        read = f"{1 + len(helpers)} files" if helpers else "its source"
        said = f"no path outside of the folder, no network and no other program in {read}"
        reached = [found("self-contained", "PASS", SCRIPT, said)]
    return Code(script=script, helpers=helpers, named=named), [*findings, *reached]


def names_in(script: Unpacked) -> str:
    """All source of a script as one text, to look for the names of other files; without words that
    are too long to be one.
    """
    texts = (_LONG.sub("", module.source) for module in script.sources)
    return "\n".join(texts)[:MAX_CHARACTERS]


def _decoded(script: Unpacked) -> list[Finding]:
    how = " in ".join(layer.method for layer in script.layers) or "not packed"
    findings = [
        found("script", "UNDECIDED", SCRIPT, f"only running would tell: {said:.200}")
        for said in script.unresolved[:20]
    ]
    if not findings:
        size = sum(len(module.source.encode("utf-8", "replace")) for module in script.modules)
        said = f"{how}, {size:,} bytes of source"
        if script.loaders:
            said += "; golf unpack shows what its loader does beside decoding"
        findings.append(found("script", "PASS", SCRIPT, said))
    return findings


def _helpers(folder: Folder) -> tuple[dict[str, Unpacked], dict[str, str]]:
    """The Python files beside the script, read; and why others are not."""
    helpers: dict[str, Unpacked] = {}
    broken: dict[str, str] = {}
    room, budget = MAX_HELPER_BYTES, Budget(HELPERS_UNPACK_TO)
    for entry in folder.files:
        if entry.suffix != ".py" or entry.path == SCRIPT:
            continue
        room -= entry.size
        if room < 0 or len(helpers) >= MAX_HELPERS:
            broken[entry.path] = _TOO_MUCH
            continue
        try:
            helpers[entry.path] = unpack_script(folder.read(entry), entry.path, budget)
        except (ValueError, OSError) as error:
            broken[entry.path] = f"{error!s:.300}"
    return helpers, broken


_TOO_MUCH = (
    f"not read: {MAX_HELPERS} files of {MAX_HELPER_BYTES:,} bytes are the most beside the script"
)


def _named(
    script: Unpacked, helpers: Mapping[str, Unpacked], broken: Mapping[str, str]
) -> frozenset[str]:
    """The files that the script names, and those that these name."""
    named: set[str] = set()
    sources = [names_in(script)]
    while sources:
        source = sources.pop()
        new = [path for path in (*helpers, *broken) if path not in named and is_named(path, source)]
        named.update(new)
        sources += [names_in(helpers[path]) for path in new if path in helpers]
    return frozenset(named)


def _broken(broken: Mapping[str, str], named: frozenset[str]) -> Iterator[Finding]:
    for path, said in list(broken.items())[:SHOWN]:
        sure = path in named and said != _TOO_MUCH
        yield found("script", "FAIL" if sure else "UNDECIDED", path, said)


def _self_contained(path: str, script: Unpacked, runs: bool) -> Iterator[Finding]:
    """What one file would reach; a file that the script does not name leaves it open."""
    told: dict[tuple[Status, str], None] = {}
    for module in script.sources:
        try:
            tree = parse(module.source).tree
        except ValueError as error:
            told["UNDECIDED", f"{module.name}: {error!s:.200}"] = None
            continue
        for at, one in enumerate(reaches(tree)):
            told.setdefault((one.status, one.said))
            if at > MAX_REACHES:
                told["UNDECIDED", f"more than {MAX_REACHES:,} findings: the rest is not told"] = (
                    None
                )
                break
    if script.unresolved:
        told["UNDECIDED", "part of the source cannot be told without running it"] = None
    failed = [key for key in told if key[0] == "FAIL"]
    for status, said in [*failed, *(key for key in told if key[0] != "FAIL")][:SHOWN]:
        if runs:
            yield found("self-contained", status, path, said)
        else:
            yield found("self-contained", "UNDECIDED", path, f"{said}; the script names no {path}")


def is_named(path: str, source: str) -> bool:
    """Whether the source says a file's name, or imports it or the folder that it lies in."""
    pure = PurePosixPath(path)
    if pure.name in source:
        return True
    modules = {*pure.parts[:-1], *([pure.stem] if len(pure.parts) == 1 else [])} - {"."}
    names = "|".join(re.escape(name) for name in modules)
    statement = rf"(?m)(^|;)[ \t]*(import|from)\b[^\n;]*(?<![\w.])({names})\b"
    call = rf"(import_module|__import__)\(\s*['\"]({names})['\".]"
    return any(re.search(pattern, source) for pattern in (statement, call))
