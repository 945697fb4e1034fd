"""What a submission counts: every file itemised, code and model as shipped, the worst seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from core.artifact.ledger import CAP_BYTES
from core.data.findings import Finding, Status
from core.score.rules import found
from tools.checks.case import Case
from tools.checks.folder import Entry
from tools.checks.kinds import LARGE_PICTURE, PICTURES, is_picture, is_text
from tools.checks.plain_json import NAME
from tools.checks.script import SCRIPT, is_named
from tools.checks.seed_logs import SeedLog

CODE_CLAIMS = ("bytes_code", "code_bytes")
TOTAL_CLAIMS = ("bytes_total", "total_bytes")
CODE_SUFFIXES = {".py", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".so", ".pyx", ".rs"}
FOR_READERS = {".md", ".rst", ".log", ".svg", ".csv", *PICTURES}
PLAIN = {"", ".md", ".rst", ".txt"}  # of what lawyers and newcomers read
TOKENIZER_SUFFIXES = {".model", ".vocab"}

Share = Literal["counted", "not counted", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file: whether its bytes count, and why."""

    path: str
    size: int
    share: Share
    why: str


def itemise(case: Case) -> list[Item]:
    """Every file of the folder, in the order of names."""
    source, logs = case.code.source, {log.name for log in case.logs}
    items = []
    for entry in case.folder.files:
        share, why = _share(case, entry, source, entry.path in logs)
        items.append(Item(path=entry.path, size=entry.size, share=share, why=why))
    return items


def _share(case: Case, entry: Entry, source: str, is_log: bool) -> tuple[Share, str]:
    if entry.path == SCRIPT:
        return "counted", "the script"
    if is_log or entry.path in (NAME, "requirements.txt", "README.md"):
        return _unless_opened(entry, source, "text for readers")
    title = entry.name.upper().startswith(("LICENSE", "NOTICE", "README"))
    if entry.suffix in FOR_READERS or (title and entry.suffix in PLAIN):
        if why := _unread(case, entry):
            return "unclear", why
        return _unless_opened(entry, source, "text for readers")
    if entry.suffix in CODE_SUFFIXES:
        if entry.path in case.code.named or is_named(entry.path, source):
            return "counted", "code that the script names"
        return "unclear", "code that the script does not name"
    if entry.suffix in TOKENIZER_SUFFIXES:
        return "unclear", "a tokenizer: asked in issue 43, no ruling"
    if entry.name in source:
        return "unclear", "a file that the script names"
    return "unclear", "of no known kind"


def _unless_opened(entry: Entry, source: str, why: str) -> tuple[Share, str]:
    """Not counted, unless the script has the name among its texts, as what it may open."""
    if re.search(rf"{re.escape(entry.name)}b?['\"]", source):
        return "unclear", "a file that the script names"
    return "not counted", why


def _unread(case: Case, entry: Entry) -> str:
    """Why nobody reads a file that is called a text or a picture."""
    try:
        start, _ = case.folder.ends(entry)
    except OSError:
        return "not readable"
    if is_picture(entry.suffix, start):
        return "a large picture" if entry.size > LARGE_PICTURE else ""
    return "" if is_text(start) else "no text for readers: binary"


def sum_of(items: list[Item], share: Share) -> int:
    return sum(item.size for item in items if item.share == share)


def model_bytes(log: SeedLog) -> int | None:
    """The compressed model, as the log says it or as it follows from the log's total."""
    told = log.log
    if told.model_bytes is not None:
        return told.model_bytes
    if told.total_bytes is None or told.code_bytes is None:
        return None
    return told.total_bytes - told.code_bytes


def check_bytes(case: Case) -> Iterator[Finding]:
    """The rules about sizes."""
    items = itemise(case)
    yield from _code(case, items)
    yield from _model(case, items)
    yield from _cap(case, items)


def _code(case: Case, items: list[Item]) -> Iterator[Finding]:
    shipped = sum_of(items, "counted")
    named = ", ".join(f"{x.path} {x.size:,}" for x in items if x.share == "counted")
    claims = {f"{NAME}: {key}": value for key, value in _claims(case, CODE_CLAIMS)}
    logged = {log.name: log.log.code_bytes for log in case.logs if log.log.code_bytes is not None}
    wrong = 0
    for subject, claim in {**claims, **logged}.items():
        if claim == shipped:
            continue
        wrong += 1
        status: Status = "FAIL"
        said = f"says {claim:,} bytes of code, shipped are {shipped:,} ({named})"
        if not case.ours and (claim > shipped or subject in logged):
            status = "UNDECIDED"  # scripts measure themselves before they are packed
            said += "; what a script measures of itself before it is packed is not what counts"
        yield found("code bytes", status, subject, said)
    if said := _other_code(case):
        wrong += 1
        yield found("code bytes", "FAIL", SCRIPT, said)
    if not wrong:
        yield found("code bytes", "PASS", SCRIPT, f"{shipped:,} bytes: {named or 'no code'}")


def _other_code(case: Case) -> str:
    """Whether the script is not the one that `golf submit` wrote."""
    told = case.submission.ours if case.submission else None
    entry = case.folder.file(SCRIPT)
    if told is None or entry is None:
        return ""
    digest, claim = hashlib.sha256(case.folder.read(entry)).hexdigest(), told.get("code_sha256")
    if digest == claim:
        return ""
    return f"its SHA-256 is {digest[:16]}, {NAME} says {claim!s:.16}: changed since it was written"


def _claims(case: Case, names: tuple[str, ...]) -> list[tuple[str, int]]:
    fields = case.submission.fields if case.submission else {}
    return [(name, fields[name]) for name in names if type(fields.get(name)) is int]


def _model(case: Case, items: list[Item]) -> Iterator[Finding]:
    """Sizes that are claimed against those of the logs."""
    code = sum_of(items, "counted")
    sizes = {log.name: size for log in case.logs if (size := model_bytes(log)) is not None}
    logged = [log.log.total_bytes for log in case.logs if log.log.total_bytes is not None]
    findings = []
    for log in case.logs:
        if log.name not in sizes:
            said = "no size of the compressed model"
            findings.append(found("model bytes", "UNDECIDED", log.name, said))
            continue
        findings += [*_own_total(log), *_claimed_sizes(case, log, sizes[log.name], code)]
    totals = [*(size + code for size in sizes.values()), *logged]
    worst = code + max(sizes.values(), default=0)
    for key, claim in _claims(case, TOTAL_CLAIMS) if sizes else ():
        findings += _claimed_total(case, key, claim, worst, totals)
    findings += _one_size(case, sizes)
    yield from findings
    if sizes and not findings:
        said = f"{len(case.logs)} logs; the worst has {max(totals):,} with its code"
        yield found("model bytes", "PASS", ".", said)


def _one_size(case: Case, sizes: Mapping[str, int]) -> Iterator[Finding]:
    """Runs whose compressed models are equally long to the byte; a codec may have but one size."""
    told = case.submission.ours if case.submission else None
    recipe = told.get("recipe") if told else None
    quant = recipe.get("quant") if isinstance(recipe, dict) else None
    one_size = isinstance(quant, dict) and quant.get("codec") == "raw"
    if len(sizes) > 1 and len(set(sizes.values())) == 1 and not one_size:
        said = f"{len(sizes)} models of {next(iter(sizes.values())):,} bytes to the byte: one "
        yield found("model bytes", "UNDECIDED", ".", f"{said}run, or one size told for all?")


def _own_total(log: SeedLog) -> Iterator[Finding]:
    told, model = log.log, model_bytes(log)
    if told.total_bytes is None or told.code_bytes is None or model is None:
        return
    if told.total_bytes != model + told.code_bytes:
        said = f"total {told.total_bytes:,} is not model {model:,} + code {told.code_bytes:,}"
        yield found("model bytes", "FAIL", log.name, said)


def _claimed_total(
    case: Case, key: str, claim: int, worst: int, totals: list[int]
) -> Iterator[Finding]:
    where = f"{NAME}: {key}"
    if claim < worst:
        status: Status = "UNDECIDED" if claim in totals and not case.ours else "FAIL"
        said = f"{claim:,} is less than the worst seed's {worst:,} as shipped"
        yield found("model bytes", status, where, said)
    elif claim not in totals:
        said = f"{claim:,} is no seed's total; the worst is {worst:,}"
        yield found("model bytes", "FAIL", where, said)


def _claimed_sizes(case: Case, log: SeedLog, model: int, code: int) -> Iterator[Finding]:
    """A seed's sizes in submission.json."""
    results = case.submission.seed_results if case.submission else {}
    row = results.get(log.log.seed if log.log.seed is not None else -1, {})
    totals = [size for size in (log.log.total_bytes, model + code) if size is not None]
    for key, sizes in (("model_bytes", [model]), ("artifact_bytes", totals)):
        claim = row.get(key)
        if isinstance(claim, int) and claim not in sizes:
            said = f"{key} {claim:,}, the log says {sizes[0]:,}"
            yield found("model bytes", "FAIL", f"{NAME}: seed {log.log.seed}", said)


def _cap(case: Case, items: list[Item]) -> Iterator[Finding]:
    code, unclear = sum_of(items, "counted"), sum_of(items, "unclear")
    sizes = [(size, log.name) for log in case.logs if (size := model_bytes(log)) is not None]
    if not sizes:
        said = "no log says the size of its compressed model"
        yield found("cap", "UNDECIDED", ".", said)
        return
    worst, name = max(sizes)
    total = worst + code
    said = f"code {code:,} + model {worst:,} = {total:,} of {CAP_BYTES:,} bytes"
    if total > CAP_BYTES:
        yield found("cap", "FAIL", name, f"{said}: {total - CAP_BYTES:,} over")
    elif total + unclear > CAP_BYTES:
        names = ", ".join(f"{x.path} {x.size:,}" for x in items if x.share == "unclear")
        yield found("cap", "UNDECIDED", name, f"{said}; over it if these count: {names}")
    elif len(sizes) < len(case.logs):
        yield found("cap", "UNDECIDED", name, f"{said}; other logs tell no size")
    else:
        yield found("cap", "PASS", name, f"{said}: {CAP_BYTES - total:,} left in the worst seed")
