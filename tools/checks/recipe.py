"""The recipe that one of our submissions carries: in its submission.json, script and logs.

A folder stays valid when the toolkit's recipes get new fields: they have their defaults in it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from core.data.findings import Finding
from core.score.rules import TASK_TOKENIZERS, found
from core.train.recipe import from_json, recipe_hash
from tools.checks.case import Case
from tools.checks.plain_json import NAME
from tools.checks.script import SCRIPT
from tools.strangers.packed import Unpacked
from tools.strangers.script_source import parse

HASH_DIGITS = 16  # of a recipe, as logs print it
MAX_DEPTH = 6
MAX_LINES, MAX_CHARACTERS = 8, 50_000  # of a script that are looked at
_RECIPE = re.compile(r"\{'name': ?'[^']*', ?'seed':")  # a bundle says it on one line
_BRACES = re.compile(r"[{}]|'(?:[^'\\]|\\.)*'")

Plain = dict[str, Any]


def recipe_of(case: Case) -> Plain | str | None:
    """That of submission.json; a sentence where it is none, None where the folder is not ours."""
    told = case.submission.ours if case.submission else None
    if told is None:
        return None
    recipe = told.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("data"), dict):
        return "golf.recipe is missing or no recipe"
    plain: Plain = json.loads(json.dumps(recipe, default=float))
    return plain


def other_recipes(case: Case, recipe: Plain) -> Iterator[tuple[str, str]]:
    """The logs, and the script, that are not of this recipe: which, and how they differ."""
    for log in case.logs:
        expected = hash_of({**recipe, "seed": log.log.seed})[:HASH_DIGITS]
        if log.recipe_hash != expected:
            said = f"recipe hash {log.recipe_hash}, the recipe in {NAME} gives {expected}"
            yield log.name, said
    if case.script is not None and (said := other_script(case.script, recipe)):
        yield SCRIPT, said


def check_told(case: Case) -> Iterator[Finding]:
    """What our submission.json says of the tokenizer and of the validation text."""
    told = case.submission.ours if case.submission else None
    if told is None:
        return
    tokenizer, validation = told.get("tokenizer"), told.get("validation")
    if not isinstance(tokenizer, dict) or not isinstance(validation, dict):
        said = "golf.tokenizer or golf.validation is missing"
        yield found("schema", "FAIL", NAME, said)
        return
    yield from _tokenizer(case, tokenizer, validation)
    for log in case.logs:
        held = {"targets": log.log.tokens, "bytes": log.log.bytes}
        for key, value in held.items():
            if log.log.score is not None and validation.get(key) != value:
                said = f"{validation.get(key)}, {log.name} says {value}"
                yield found("numbers", "FAIL", f"{NAME}: golf.validation.{key}", said)


def _tokenizer(
    case: Case, told: Mapping[str, Any], validation: Mapping[str, Any]
) -> Iterator[Finding]:
    """One tokenizer: the file that is shipped or the task's own, which the shards were made by."""
    name, digest = str(told.get("file")), told.get("sha256")
    if told.get("shipped") is not False:
        yield from _shipped(case, name, digest)
    elif digest not in TASK_TOKENIZERS:
        said = f"SHA-256 {digest!s:.16} is no tokenizer of the task: it travels with its submission"
        yield found("files", "FAIL", name, said)
    made_with = validation.get("tokenizer_sha256")
    if made_with is None:
        said = "golf.validation does not say which tokenizer the shards were made with"
        yield found("whole split", "UNDECIDED", NAME, said)
    elif made_with != digest:
        said = f"the shards were made with tokenizer {made_with!s:.16}, golf.tokenizer is "
        yield found("files", "FAIL", name, f"{said}{digest!s:.16}: not the one that was scored")


def _shipped(case: Case, name: str, claim: object) -> Iterator[Finding]:
    entry = case.folder.file(name)
    if entry is None:
        yield found("files", "FAIL", name, f"the tokenizer that {NAME} names is missing")
    elif (digest := hashlib.sha256(case.folder.read(entry)).hexdigest()) != claim:
        said = f"its SHA-256 is {digest[:16]}, {NAME} says {claim!s:.16}: another tokenizer"
        yield found("files", "FAIL", name, said)


def hash_of(recipe: Plain) -> str:
    """The hash of the recipe that this is the data of; a sentence where it is of none."""
    try:
        return recipe_hash(from_json(json.dumps(recipe), NAME))
    except (ValueError, TypeError):
        return "none, it is no recipe"


def recipe_in(script: Unpacked) -> Plain | None:
    """What a bundle says its recipe is, without where its data lies; None where it says none."""
    for module in reversed(script.modules):
        lines = [line for line in module.source.splitlines() if _RECIPE.search(line)]
        for line in reversed(lines[-MAX_LINES:]):
            try:
                said = parse(_braced(line), MAX_CHARACTERS).tree.body[0]
                assert isinstance(said, ast.Expr)
                told: Plain = _value(said.value, 0)
                return told
            except ValueError:
                continue
    return None


def _braced(line: str) -> str:
    """The dict that begins where a recipe does, to its own brace."""
    start = next(_RECIPE.finditer(line)).start()
    depth = 0
    for at, word in enumerate(_BRACES.finditer(line, start, start + MAX_CHARACTERS)):
        depth += {"{": 1, "}": -1}.get(word.group(), 0)
        if at and not depth:
            return line[start : word.end()]
    raise ValueError("no end")


def other_script(script: Unpacked, recipe: Plain) -> str:
    """How a script's recipe differs; nothing where it does not."""
    held = recipe_in(script)
    if held is None:
        return "holds no recipe that could be read"
    if odd := list(_unlike(held, recipe, "")):
        return f"its recipe is not that of {NAME}: {', '.join(odd[:4])}"
    try:  # defaults are compared by what this toolkit takes for them
        both = [from_json(json.dumps(one), NAME) for one in (held, recipe)]
    except (ValueError, TypeError):
        return ""
    same = len({recipe_hash(replace(one, seed=0)) for one in both}) == 1
    return "" if same else f"its recipe leaves out what {NAME} says"


def _unlike(held: Mapping[str, Any], recipe: Mapping[str, Any], where: str) -> Iterator[str]:
    """Fields that are told and are not the recipe's."""
    for name, value in held.items():
        other = recipe.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _unlike(value, other, f"{where}{name}.")
        elif value != other and name != "seed":
            yield f"{where}{name} {value!r:.40}"


def _value(node: ast.expr, depth: int) -> Any:
    """What an expression of plain values says, as JSON data; names are left out."""
    if isinstance(node, ast.Dict) and depth < MAX_DEPTH:
        held = zip(node.keys, node.values, strict=True)
        return {
            str(_value(key, depth + 1)): _value(value, depth + 1)
            for key, value in held
            if key is not None and not isinstance(value, ast.Name)
        }
    if isinstance(node, ast.Tuple | ast.List) and depth < MAX_DEPTH:
        return [_value(one, depth + 1) for one in node.elts]
    try:
        value = ast.literal_eval(node)
        json.dumps(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("no plain value") from None
    return value
