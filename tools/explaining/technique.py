"""Technique: what a switch of a recipe does, its formula, where it comes from, its worth.

Effects are bits per byte as the public records and their threads tell them; negative is better.
Defaults come from the dataclasses, tests from the table of cases: nothing is said twice.
"""

from __future__ import annotations

from dataclasses import dataclass

ARCH, OPTIM, SCHEDULE, DATA, QAT = "arch", "optim", "schedule", "data", "qat"
QUANT = "quant"
WHOLE = ""  # a field of the recipe itself


@dataclass(frozen=True)
class Technique:
    """One row. `fields` of `section`: the first one switches it, `off` is its value without."""

    name: str
    section: str
    fields: tuple[str, ...]
    off: object
    formula: str
    source: str
    effect: str
    case: str  # of tests/parity/cases.py, or the file of its tests

    @property
    def paths(self) -> list[str]:
        """Its fields as a command line names them."""
        return [f"{self.section}.{name}".lstrip(".") for name in self.fields]


def of_arch(
    name: str, fields: str, off: object, formula: str, source: str, effect: str, case: str
) -> Technique:
    return Technique(name, ARCH, tuple(fields.split()), off, formula, source, effect, case)


def of_optim(
    name: str, fields: str, off: object, formula: str, source: str, effect: str, case: str
) -> Technique:
    return Technique(name, OPTIM, tuple(fields.split()), off, formula, source, effect, case)
