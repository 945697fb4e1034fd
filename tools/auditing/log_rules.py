"""What one log tells against the rules, with no folder and no claim beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from core.artifact.ledger import CAP_BYTES
from core.data.findings import Finding, Status
from core.score.book import ruled
from core.score.rules import EVAL_S, OVERRUN_S, TRAIN_S, WORLD_SIZE, found
from tools.checks.bytes import check_bytes
from tools.checks.case import Case
from tools.checks.folder import Folder
from tools.checks.logs import check_logs
from tools.checks.score import bytes_per_token, check_score, room_of
from tools.checks.script import Code
from tools.checks.seed_logs import SeedLog

# Of `golf check`, what a log alone can answer; its code is not at hand.
ALONE = {"logs", "model bytes", "whole split", "lossless", "implied bytes"}
TIMES = ("training time", "evaluation time")
TAIL_BYTES = 70_000.0  # of windows of up to 32,768 tokens: 151,024,099 to 151,080,556
EARLIER_PREP = 1499  # train shards of exports that kept 10,000 documents for validation
_OUTSIDE = re.compile(r"\w*precompute_outside", re.IGNORECASE)
_VARIANT = re.compile(r"fineweb10B_(?:sp|byte)(\d{3,5})")
_MODEL = re.compile(r"(?<!\d)(\d{3,5})(?!\d)")  # in the name of a tokenizer's file


def audit_log(log: SeedLog) -> list[Finding]:
    """Findings on a log that lies by itself."""
    folder = Folder(root=Path(log.name).parent, entries=())
    case = Case(folder=folder, submission=None, logs=(log,), others=(), code=Code())
    told = [*check_bytes(case), *check_logs(case), *check_score(case)]
    findings = [one for one in told if one.rule in ALONE]
    findings += [_of_time(log, one) for one in told if one.rule in TIMES]
    findings.append(logged_size(log))
    for note in log.log.notes:
        if note.startswith("its name"):
            findings.append(found("seeds", "FAIL", log.name, note))
    return [*findings, *more(log)]


def more(log: SeedLog) -> Iterator[Finding]:
    """What `golf check` does not ask, of any log."""
    yield from _constant(log)
    yield from _belongs(log)
    yield from _phases(log)
    yield from _settings(log)
    yield from _tail(log)


def logged_size(log: SeedLog) -> Finding:
    """The artifact as the script measured it: what is shipped may be packed further."""
    total = log.log.total_bytes
    if total is None:
        return found("cap", "UNDECIDED", log.name, "no total of code and compressed model")
    said = f"{total:,} of {CAP_BYTES:,} bytes, by the log's own count"
    if total <= CAP_BYTES:
        return found("cap", "PASS", log.name, said)
    said += "; code that was packed after it shows in the folder alone"
    return found("cap", "FAIL", log.name, said)


def tails(logs: Iterable[SeedLog]) -> Iterator[Finding]:
    """Logs whose targets fill their windows exactly, as of scripts that drop the rest."""
    odd = []
    for log in logs:
        length = _seq_len(log)
        tokens = log.log.tokens
        if length > 1 and tokens and tokens % length == 0 and log.log.bytes is None:
            odd.append((log, length))
    if odd:
        name, length = odd[0][0].name, odd[0][1]
        said = f"{len(odd)} logs, the first {name}: its targets are whole windows of {length:,}; "
        said += f"up to {length - 1:,} at the end may be left out, which the log does not tell"
        yield ruled("B11", "UNDECIDED", f"{len(odd)} logs", said)


def _of_time(log: SeedLog, one: Finding) -> Finding:
    """Times bind where a record is made: on 8 ranks; elsewhere they are told."""
    record = log.log.world_size == WORLD_SIZE
    if record and one.rule == "evaluation time" and (log.eval_ms or 0.0) > 1000.0 * EVAL_S:
        return replace(one, status="FAIL")
    if record or one.status != "FAIL":
        return one
    ranks = log.log.world_size or "not told how many"
    said = f"{one.evidence}; on {ranks} ranks, where no record is made"
    return replace(one, status="UNDECIDED", evidence=said)


def _constant(log: SeedLog) -> Iterator[Finding]:
    """A byte count of so many a token, to three decimals: no text has that but of bytes."""
    ratio = bytes_per_token(log.log)
    if ratio is None or log.log.lossy:
        return
    near = round(ratio, 3)
    if near != 1.0 and abs(ratio - near) <= 3e-8 * ratio:
        said = f"{near:g} bytes a token to 7 digits: a constant in place of a count"
        yield ruled("B18", "FAIL", log.name, said)


def _belongs(log: SeedLog) -> Iterator[Finding]:
    """Whether data, tokenizer and vocabulary are of one size, where the header names them."""
    settings = log.log.hyperparameters
    text = " ".join(f"{name}={value}" for name, value in settings.items())
    sizes = {f"data of {x}": int(x) for x in _VARIANT.findall(text)}
    for size in _MODEL.findall(Path(settings.get("tokenizer_path", "")).name):
        sizes[f"a tokenizer of {size}"] = int(size)
    if (told := settings.get("vocab_size", "")).isdigit():
        sizes[f"a vocabulary of {told}"] = int(told)
    if len(set(sizes.values())) > 1:
        yield ruled("B16", "FAIL", log.name, f"its header names {', '.join(sizes)}")
    folds = "caseops" in text.lower()
    off = re.search(r"caseops_enabled=(0|False)\b", text, re.IGNORECASE)
    if folds and off and re.search(r"caseops[^ ]*_v\d", text, re.IGNORECASE):
        said = "data of transformed text, and the transform switched off: its sidecar is not read"
        yield ruled("B7", "FAIL", log.name, said)


def _phases(log: SeedLog) -> Iterator[Finding]:
    """Passes over training data belong to the 600 s; whether packing does is open."""
    held = log.log.phases_s
    train_s = (log.log.train_time_ms or 0.0) / 1000.0
    hessians_s = held.get("hessians_s", held.get("calibrate_s", 0.0))
    packing_s = held.get("quantize_s", 0.0) + held.get("compress_s", 0.0)
    if not hessians_s and not packing_s:
        return
    whole_s = train_s + hessians_s
    said = f"{train_s:.1f} s of training + {hessians_s:.1f} s of calibration = {whole_s:.1f} s"
    record = log.log.world_size == WORLD_SIZE
    over = whole_s > TRAIN_S + OVERRUN_S
    status: Status = "PASS" if not over else "FAIL" if record else "UNDECIDED"
    if hessians_s:
        yield ruled("L12", status, log.name, said)
    if packing_s and not over and whole_s + packing_s > TRAIN_S:
        said += f", {packing_s:.1f} s of packing behind it: whether that counts is open"
        yield ruled("L13", "UNDECIDED", log.name, said)


def _settings(log: SeedLog) -> Iterator[Finding]:
    """Settings that have a history."""
    if log.log.train_shards == EARLIER_PREP:
        said = f"{EARLIER_PREP} train shards, as of exports that keep 10,000 documents for "
        said += "validation: 40,000 of the 50,000 may be in training"
        yield ruled("B10", "UNDECIDED", log.name, said)
    for name, value in log.log.hyperparameters.items():
        if _OUTSIDE.fullmatch(name) and value.lower() in ("1", "true"):
            said = f"{name} {value}: hints made from validation text outside the timer"
            yield ruled("L15", "UNDECIDED", log.name, said)


def _tail(log: SeedLog) -> Iterator[Finding]:
    """Fewer targets than the header says, by less than a window."""
    told, scored = log.log.stated_tokens, log.log.tokens
    if log.log.score is None or told is None or scored is None or not 1 < told - scored < 32_769:
        return
    said = f"{scored:,} of {told:,} targets scored: {told - scored:,} at the end are left out"
    yield ruled("B11", "UNDECIDED", log.name, said)


def _seq_len(log: SeedLog) -> int:
    settings = log.log.hyperparameters
    told = settings.get("eval_seq_len") or settings.get("train_seq_len") or "0"
    return int(told) if re.fullmatch(r"\d{1,7}", told) else 0


def one_text(logs: Iterable[SeedLog]) -> list[tuple[float, str]]:
    """The byte counts that scores were divided by, where they differ by more than digits leave."""
    held = [(log.log.implied_bytes or 0.0, log.name, log) for log in logs if log.log.implied_bytes]
    groups: list[tuple[float, str]] = []
    for implied, name, log in sorted(held, key=lambda one: one[:2]):
        room = room_of(log.log, implied) + TAIL_BYTES
        if not groups or implied - groups[-1][0] > room:
            groups.append((implied, name))
    return groups
