"""What stands around a log's results: the source that a script printed before them, our recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.strangers.log_headers import MAX_SETTINGS, SETTING_CHARACTERS
from tools.strangers.log_lines import LINE_CHARACTERS, StepLine, read_line

RECIPE_BYTES = 1 << 20

_RULE = re.compile(r"={80,}")  # the line of 100 behind the source
_STATEMENT = re.compile(
    r"import +[\w.]+(?: as|,|;|\s*$)|from +[\w.]+ +import\b|def +\w+\(|class +\w+[(:]|if __name__\b"
)
_UNPACKS = re.compile(r"(?:import\b.*)?\bexec\(")  # a script that carries itself compressed


def source_end(lines: list[str]) -> tuple[int, int, list[str]]:
    """How many lines the embedded source takes, where the results begin, and what is odd.

    Lines of 80 or more `=` cut the log into parts. Everything up to the end of the last part that
    reads as Python is source, or an earlier run whose log this one was appended to.
    """
    cuts = [at for at, line in enumerate(lines) if _RULE.fullmatch(line[:LINE_CHARACTERS].strip())]
    starts = [0, *(cut + 1 for cut in cuts)]
    parts = list(zip(starts, [*cuts, len(lines)], strict=True))
    sources = [(start, end) for start, end in parts if _is_source(lines[start:end])]
    if sources and sources[-1][1] == len(lines):  # no line of `=` behind it
        start = sources.pop()[0]
        if not _has_results(lines[start : start + _first_statement(lines[start:])]):
            end = start + _last_statement(lines[start:])
            return end, end, ["the embedded source has no end marked"]
    if not sources:
        return 0, 0, []
    start, end = sources[-1]
    notes = ["an earlier run stands before the last source: not read"]
    return end, end + 1, notes if _has_results(lines[:start]) else []


def recipe_settings(path: Path) -> tuple[dict[str, str], str | None]:
    """The fields of a recipe.json as section.field, and what is wrong with it."""
    if not path.is_file():
        return {}, "there is no recipe.json"
    if path.stat().st_size > RECIPE_BYTES:
        return {}, f"recipe.json has over {RECIPE_BYTES:,} bytes: not read"
    try:
        recipe = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}, "recipe.json is not JSON"
    if not isinstance(recipe, dict):
        return {}, "recipe.json holds no fields"
    return dict(_flat(recipe)), None


def _flat(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in list(recipe.items())[:MAX_SETTINGS]:
        section = value if isinstance(value, dict) else None
        for key, inner in ({"": value} if section is None else section).items():
            yield f"{name}.{key}" if section is not None else name, _text(inner)


def _text(value: Any) -> str:
    try:
        return str(value)[:SETTING_CHARACTERS]
    except (ValueError, RecursionError):  # an integer of thousands of digits, a deep list
        return "?"


def _has_results(lines: Iterable[str]) -> bool:
    return any(isinstance(read_line(0, line[:LINE_CHARACTERS]), StepLine) for line in lines)


def _is_source(lines: Iterable[str]) -> bool:
    """Two statements at the margin, which a traceback has not, or one that unpacks a script."""
    found = 0
    for line in lines:
        if _UNPACKS.match(line[:LINE_CHARACTERS]):
            return True
        found += _begins(line)
        if found > 1:
            return True
    return False


def _begins(line: str) -> bool:
    start = line[:LINE_CHARACTERS]
    return bool(_STATEMENT.match(start) or _UNPACKS.match(start))


def _first_statement(lines: list[str]) -> int:
    """Where the source of a part begins: with its docstring, or with a statement."""
    quotes = ('"""', "'''", "#!")
    return next(at for at, line in enumerate(lines) if line.startswith(quotes) or _begins(line))


def _last_statement(lines: list[str]) -> int:
    """The lines up to the last statement at the margin and what is indented below it."""
    last = max(at for at, line in enumerate(lines) if _begins(line))
    below = last + 1
    while below < len(lines) and lines[below][:1] in ("", " ", "\t", ")"):
        below += 1
    return below
