"""What a field of a recipe does: formula, default, what turns it off, source, effect, its test."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from core.arch.fields import closest
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant
from core.data.batches import Data
from core.train.qat import Qat
from core.train.recipe import Optim, Recipe, Schedule
from tools.explaining.depth import DEPTH
from tools.explaining.packing import PACKING
from tools.explaining.technique import Technique
from tools.explaining.training import TRAINING
from tools.explaining.width import WIDTH
from tools.say import UsageError, print_fields, print_json

TECHNIQUES = (*DEPTH, *WIDTH, *TRAINING, *PACKING)
SECTIONS: dict[str, type] = {
    "arch": ModelSpec,
    "optim": Optim,
    "schedule": Schedule,
    "data": Data,
    "qat": Qat,
    "quant": Quant,
    "": Recipe,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("field", nargs="?", help="as attn_gate_dims, optim.row_norm or xsa")
    parser.add_argument("--table", action="store_true", help="all techniques, as markdown")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.table or args.field is None:
        print(table(), end="")
        return 0
    found = [row(technique) for technique in about(args.field)]
    if args.json:
        print_json({"techniques": found})
        return 0
    for number, fields_ in enumerate(found):
        if number:
            print()
        print_fields(fields_)
    return 0


def about(word: str) -> list[Technique]:
    """The techniques that a field switches or tunes, or whose name this is."""
    name = word.split(".", 1)[-1]
    found = [t for t in TECHNIQUES if name in t.fields or word.lower() == t.name.lower()]
    if not found:
        known = {n for t in TECHNIQUES for n in (*t.fields, t.name)}
        raise UsageError(f"nothing is called {word!r}; {closest(name, known)}")
    return found


def row(technique: Technique) -> dict[str, Any]:
    """One technique with what the code says of it."""
    return {
        "technique": technique.name,
        "fields": technique.paths,
        "default": default(technique),
        "off": spelled(technique.off),
        "formula": technique.formula,
        "source": technique.source,
        "effect_bpb": technique.effect,
        "engines": "both",
        "test": test(technique),
    }


def default(technique: Technique) -> str:
    """Of its first field, in a section that nobody changed."""
    held = {field.name: field.default for field in fields(SECTIONS[technique.section])}
    return spelled(held[technique.fields[0]])


def spelled(value: object) -> str:
    """A value as a command line would say it."""
    return "none" if value in ((), None) else str(value).lower()


def test(technique: Technique) -> str:
    if "/" in technique.case:
        return f"pytest {technique.case}"
    return f"pytest tests/parity -k {technique.case}"


def table() -> str:
    """Every technique as a row of markdown; both engines have all of them."""
    lines = ["| technique | field | default | off | what it does | source | effect, BPB | case |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for technique in TECHNIQUES:
        cells = (
            technique.name,
            ", ".join(f"`{path}`" for path in technique.paths),
            default(technique),
            spelled(technique.off),
            technique.formula.replace("|", "\\|"),
            technique.source,
            technique.effect,
            f"`{technique.case}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
