"""submission.json of anybody: parsed within bounds, its fields found under the names in use."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.data.findings import Finding
from core.score.rules import found
from tools.checks.folder import Folder

NAME = "submission.json"
MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_DIGITS = 40  # of a number; the longest float64 has 17

TEXT_FIELDS = ("author", "github_id", "name", "date")
SCORES = ("val_loss", "val_bpb")
INDEX = re.compile(r"\[\d+\]")  # of a list, among the names that lead to a number
DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?)?")

Number = int | Decimal


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry of seed_results, as it is called; its seed where that is a whole number."""

    path: tuple[str, str]
    label: str
    seed: int | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The object; floats are Decimal, which keeps the digits that were written."""

    fields: Mapping[str, Any]

    @property
    def ours(self) -> Mapping[str, Any] | None:
        """What `golf submit` tells an auditor, where it wrote the file."""
        told = self.fields.get("golf")
        return told if isinstance(told, dict) else None

    @property
    def rows(self) -> list[Row]:
        """seed_results: an object by seed, or a list of objects with one. A plain number is a
        seed's val_bpb.
        """
        told = self.fields.get("seed_results")
        if isinstance(told, dict):
            held = [(key, key, row) for key, row in told.items()]
        else:
            listed = list(enumerate(told if isinstance(told, list) else []))
            held = [(f"[{at}]", _label(row, at), row) for at, row in listed]
        return [
            Row(
                path=("seed_results", key),
                label=label,
                seed=seed_of(label),
                fields=row if isinstance(row, dict) else {"val_bpb": row},
            )
            for key, label, row in held
            if isinstance(row, dict | Decimal)
        ]

    @property
    def seed_results(self) -> dict[int, Mapping[str, Any]]:
        return {row.seed: row.fields for row in self.rows if row.seed is not None}

    @property
    def seeds(self) -> list[int]:
        told = self.fields.get("seeds")
        named = [seed_of(str(x)) for x in told] if isinstance(told, list | dict) else []
        return sorted({*(seed for seed in named if seed is not None), *self.seed_results})

    @property
    def track(self) -> str:
        told = self.fields.get("track")
        return told if isinstance(told, str) else ""

    def numbers(self) -> Iterator[tuple[tuple[str, ...], Number]]:
        """Every number with the names that lead to it."""
        yield from _numbers((), self.fields)


def read_submission(folder: Folder) -> tuple[Submission | None, Finding]:
    """The file's object, or None with the reason."""
    entry = folder.file(NAME)
    if entry is None:
        return None, found("json", "FAIL", NAME, "missing")
    if entry.size > MAX_BYTES:
        said = f"{entry.size:,} bytes, more than {MAX_BYTES:,}"
        return None, found("json", "FAIL", NAME, said)
    try:
        fields = parse(folder.read(entry, MAX_BYTES).decode("utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        return None, found("json", "FAIL", NAME, f"not to be read: {error!s:.200}")
    return Submission(fields=fields), found("json", "PASS", NAME, f"{len(fields)} fields")


def parse(text: str) -> dict[str, Any]:
    """One object; ValueError for anything that two readers might read in two ways."""
    data = json.loads(
        text,
        parse_float=_decimal,
        parse_int=_whole,
        parse_constant=_refused,
        object_pairs_hook=_once,
    )
    if not isinstance(data, dict):
        raise ValueError("expected an object")
    if _depth(data, 0) > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return data


def check_schema(submission: Submission) -> Iterator[Finding]:
    """Fields of the reference records, and their types."""
    fields = submission.fields
    problems = [
        f"{name} is missing or no text" for name in TEXT_FIELDS if not _is_text(fields.get(name))
    ]
    if not any(isinstance(fields.get(key), Decimal) for key in ("val_bpb", "mean_val_bpb")):
        problems.append("val_bpb is missing or no number with decimals")
    date = fields.get("date")
    if isinstance(date, str) and not is_date(date.strip()):
        problems.append(f"date {date!r:.40} is not as 2026-03-18")
    twice = [label for label, n in Counter(str(x.seed) for x in submission.rows).items() if n > 1]
    problems += [f"seed_results has seed {one} twice" for one in twice if one != "None"]
    for name in ("seed_results", "seeds"):
        if name in fields and not isinstance(fields[name], dict | list):
            problems.append(f"{name} is neither a list nor an object")
    for problem in problems:
        yield found("schema", "FAIL", NAME, problem)
    unknown = [name for name in TEXT_FIELDS[:2] if fields.get(name) == "unknown"]
    if unknown:
        yield found("schema", "UNDECIDED", NAME, f"{' and '.join(unknown)}: unknown")
    if not problems:
        yield found("schema", "PASS", NAME, "author, github_id, name, date, val_bpb")


def is_date(text: str) -> bool:
    """Whether it is a day of the calendar, as 2026-03-18, perhaps with its time."""
    if not DATE.fullmatch(text):
        return False
    try:
        datetime.strptime(text[:10], "%Y-%m-%d")
    except ValueError:
        return False
    return text[10:] == "" or (int(text[11:13]) < 24 and int(text[14:16]) < 60)


def decimals(number: Number) -> int:
    """Digits behind the point, as they were written."""
    exponent = number.as_tuple().exponent if isinstance(number, Decimal) else 0
    return max(0, -int(exponent))


def agrees(claim: Number, value: float) -> bool:
    """Whether the claim is the value rounded to the claim's digits."""
    half = 0.5 * 10.0 ** -decimals(claim)
    return abs(float(claim) - value) <= half * (1 + 1e-6) + 1e-12 * abs(value)


def _numbers(names: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Number]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers((*names, name), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers((*names, f"[{index}]"), inner)
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        yield names, value


def seed_of(label: str) -> int | None:
    """42 for 42 and seed_42; None for 042, which is another word for the same, and for best."""
    match = re.fullmatch(r"(?:seed[-_ ]?)?(0|[1-9]\d{0,14})", label, re.IGNORECASE)
    return int(match[1]) if match else None


def _label(row: Any, at: int) -> str:
    return str(row.get("seed", f"row {at}"))[:80] if isinstance(row, dict) else f"row {at}"


def _decimal(text: str) -> Decimal:
    number = Decimal(text) if len(text) <= MAX_DIGITS else None
    if number is None or not number.is_finite() or abs(number.adjusted()) > 300:
        raise ValueError(f"the number {text[:20]} is out of bounds")
    return number


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"the number {text[:20]}... has {len(text)} digits")
    return int(text)


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice!r:.40} stands twice in one object")
    return fields


def _depth(value: Any, at: int) -> int:
    if at > MAX_DEPTH or not isinstance(value, dict | list):
        return at
    inner = value.values() if isinstance(value, dict) else value
    return max((_depth(one, at + 1) for one in inner), default=at)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
