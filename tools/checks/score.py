"""The rules about numbers: the score, what it was taken over, and every other number told."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from core.data.findings import Finding
from core.score.book import CANONICAL_BYTES, looks_like
from core.score.rules import VALIDATION_BYTES, VALIDATION_TOKENS, found
from core.score.stats import sample
from tools.checks.case import Case
from tools.checks.numbers import check_numbers
from tools.checks.plain_json import NAME, SCORES, Number, Row, agrees, decimals
from tools.checks.seed_logs import SeedLog
from tools.strangers.logs import RunLog, usable

MAX_TAIL = 32_768  # targets at the end that a script may leave out
DECIMALS = 4  # that a score needs, for its digits to say anything
ROWS = 500  # of seed_results that are looked at
README_BYTES = 1 << 20
_CLAIMED = re.compile(r"val_bpb[`*: =|]{0,8}(\d{1,2}\.\d{1,12})\b")
_TABLE = re.compile(r"^\| (\d{1,15}) \| (\d{1,3}\.\d{8}) \| (\d{1,3}\.\d{8}) \|", re.M)


def check_score(case: Case) -> Iterator[Finding]:
    yield from _score(case)
    yield from check_numbers(case)
    yield from _whole_split(case)
    yield _lossless(case)
    yield from _implied(case)


def _score(case: Case) -> Iterator[Finding]:
    if case.submission is None:
        return
    findings = []
    fields = case.submission.fields
    for name in SCORES:
        for key in (name, f"mean_{name}"):
            if _is_number(fields.get(key)) and case.values(name):
                findings.append(_headline(case, key, name, fields[key]))
    for row in case.submission.rows[:ROWS]:
        findings += _of_row(case, row)
    findings += _of_readme(case)
    bad = [one for one in findings if one.status != "PASS"]
    yield from bad
    if findings and not bad:
        said = f"{len(findings)} scores are those of the logs' last lines"
        yield found("score", "PASS", NAME, said)
    if not findings:
        yield found("score", "FAIL", NAME, "no score in it that a log could confirm")


def _headline(case: Case, key: str, name: str, claim: Number) -> Finding:
    """The score of the whole submission: the mean of its runs."""
    values = case.values(name)
    mean = sample(values).mean
    where = f"{NAME}: {key}"
    if decimals(claim) < DECIMALS:
        said = f"{claim} has fewer than {DECIMALS} digits behind its point; the mean is {mean:.8f}"
        return found("score", "UNDECIDED" if agrees(claim, mean) else "FAIL", where, said)
    if agrees(claim, mean):
        return found("score", "PASS", where, f"{claim}, the mean of {len(values)} logs")
    same = [log.name for log in case.logs if _agrees(claim, log, name)]
    if same:
        said = f"{claim} is the score of {same[0]} alone; the mean is {mean:.8f}"
        several = case.submission is not None and len(case.submission.seeds) > 1
        return found("score", "FAIL" if several else "UNDECIDED", where, said)
    said = f"{claim}, the mean of the logs is {mean:.{max(8, decimals(claim))}f}"
    return found("score", "FAIL", where, said + _other_line(case.logs, name, claim))


def _of_row(case: Case, row: Row) -> Iterator[Finding]:
    """The scores of one entry of seed_results: of its seed, or of all runs where it has none."""
    for name in SCORES:
        if not _is_number(claim := row.fields.get(name)):
            continue
        assert isinstance(claim, Number)
        log = None if row.seed is None else case.of_seed(row.seed)
        if log is not None and row.seed is not None:
            yield _of_seed(log, row.seed, name, claim)
        elif row.seed is None:
            where = f"{NAME}: seed_results.{row.label[:40]}.{name}"
            mean = sample(case.values(name)).mean if case.values(name) else math.nan
            if agrees(claim, mean):
                yield found("score", "PASS", where, f"{claim}, the mean of the logs")
                continue
            same = [one.name for one in case.logs if _agrees(claim, one, name)]
            said = f"{claim}, under a name that is no seed; {same[0] if same else 'no log'} ends so"
            yield found("score", "UNDECIDED" if same else "FAIL", where, said)


def _of_readme(case: Case) -> Iterator[Finding]:
    """What the README says of the score: of a folder of ours all of it, of another's any of it."""
    entry, values = case.folder.file("README.md"), case.values("val_bpb")
    if entry is None or not values:
        return
    text = case.folder.read(entry, README_BYTES).decode("utf-8", "replace")
    mean, claims = sample(values).mean, [Decimal(x) for x in _CLAIMED.findall(text)[:1000]]
    right = [x for x in claims if agrees(x, mean)]
    if claims and not (right[:1] == claims[:1] if case.ours else right):
        said = f"says val_bpb {claims[0]}, the mean of the logs is {mean:.8f}"
        yield found("score", "FAIL" if case.ours else "UNDECIDED", "README.md", said)
    for seed, *scores in _TABLE.findall(text)[:ROWS] if case.ours else ():
        if (log := case.of_seed(int(seed))) is not None:
            for name, claim in zip(SCORES, scores, strict=True):
                if not _agrees(Decimal(claim), log, name):
                    said = f"says {claim} of seed {seed}, {log.name} does not"
                    yield found("score", "FAIL", f"README.md: {name}", said)


def _of_seed(log: SeedLog, seed: int, name: str, claim: Number) -> Finding:
    where = f"{NAME}: seed {seed} {name}"
    score = log.log.score
    if score is None:
        return found("score", "FAIL", where, f"{log.name} has no score after quantization")
    value = getattr(score, name)
    if agrees(claim, value):
        return found("score", "PASS", where, f"{claim}, line {score.line} of {log.name}")
    said = f"{claim}, line {score.line} of {log.name} says {value:.8f}"
    return found("score", "FAIL", where, said + _other_line((log,), name, claim))


def _agrees(claim: Number, log: SeedLog, name: str) -> bool:
    score = log.log.score
    return score is not None and usable(score) and agrees(claim, getattr(score, name))


def _other_line(logs: tuple[SeedLog, ...], name: str, claim: Number) -> str:
    """Where else the claim stands: before quantization, or on the way."""
    for log in logs:
        told = [(line.line, line.label, getattr(line, name)) for line in log.log.finals]
        told += [(x.line, "a validation on the way", getattr(x, name)) for x in log.log.vals]
        for at, label, value in told:
            if agrees(claim, value):
                return f"; it stands in line {at} of {log.name}: {label:.60}"
    means = {final.label for log in logs for final in log.log.finals}
    for label in sorted(means):
        same = [getattr(x, name) for log in logs for x in log.log.finals if x.label == label]
        if len(same) == len(logs) and agrees(claim, sample(same).mean):
            return f"; it is the mean of the lines {label:.60}"
    return ""


def _whole_split(case: Case) -> Iterator[Finding]:
    bad = []
    for log in case.logs:
        if log.log.subset:
            bad.append((log.name, f"its score is of a subset: {log.log.subset[:80]}"))
        if log.log.modified:
            bad.append((log.name, f"the scored model was modified: {log.log.modified[:80]}"))
        if said := _cut(log.log):
            bad.append((log.name, said))
    scored = [log.log for log in case.logs if log.log.score is not None]
    counts = {log.tokens for log in scored if log.tokens is not None}
    if len(counts) > 1:
        said = f"the logs scored {min(counts):,} to {max(counts):,} tokens: not one validation text"
        bad.append((".", said))
    for subject, said in bad:
        yield found("whole split", "FAIL", subject, said)
    if not bad and counts:
        said = f"{counts.pop():,} tokens in every log that says so, no sign of a subset"
        yield found("whole split", "PASS", ".", said)
    elif not bad:
        yield found("whole split", "UNDECIDED", ".", "no log says how many tokens were scored")


def _cut(log: RunLog) -> str:
    """Whether the score is of fewer or more targets than the header says that there are."""
    told, scored = log.stated_tokens, log.tokens
    if log.score is None or told is None or scored is None:
        return ""
    tail = max(1, min(MAX_TAIL, told // 100))  # the last window of some scripts is not scored
    if told - tail <= scored <= told:
        return ""
    return f"its score is of {scored:,} targets, its header says {told:,} tokens"


def _lossless(case: Case) -> Finding:
    """Whether a score says that its tokenizer loses text: an estimate for no leaderboard."""
    lossy = [(log.name, log.log.lossy) for log in case.logs if log.log.lossy]
    if not lossy:
        return found("lossless", "PASS", ".", "no score says that its tokenizer loses text")
    said = f"its score is lossy: {lossy[0][1]:.200}"
    if not case.record:
        said += "; it compares with no score of the whole text"
    return found("lossless", "FAIL" if case.record else "UNDECIDED", lossy[0][0], said)


def _implied(case: Case) -> Iterator[Finding]:
    for log in case.logs:
        implied = log.log.implied_bytes
        if implied is None:
            said = "tokens, val_loss and val_bpb are not all told"
            yield found("implied bytes", "UNDECIDED", log.name, said)
        else:
            yield _implied_of(case, log, implied)


def _implied_of(case: Case, log: SeedLog, implied: float) -> Finding:
    told = log.log.bytes
    room = room_of(log.log, implied)
    said = f"{implied:,.0f} bytes implied"
    if told is not None and abs(told - implied) > room:
        said += f", {told:,} told: loss, BPB, tokens and bytes do not fit together"
        return found("implied bytes", "FAIL", log.name, said)
    low, high = VALIDATION_BYTES
    if low - room <= implied <= high + room:
        return found("implied bytes", "PASS", log.name, f"{said}, as of the task's validation text")
    said += f"; the task's validation text gives {low:,} to {high:,}"
    if told is not None and not case.record and not _of_the_task(log.log):
        said += ": another text, whose score compares with nothing on the leaderboard"
        return found("implied bytes", "UNDECIDED", log.name, said)
    ratio = implied / CANONICAL_BYTES
    if (like := looks_like(ratio)) is not None:
        said += f"; {ratio:.4f} times that looks like {like.id}: {like.what}"
    return found("implied bytes", "FAIL", log.name, said)


def room_of(log: RunLog, implied: float) -> float:
    """Bytes that the printed digits of a score leave open."""
    score = log.score
    assert score is not None
    rounded = all(round(x, 4) == x for x in (score.val_loss, score.val_bpb))
    return 2.0 + implied * (1e-4 if rounded else 2e-8)


def bytes_per_token(log: RunLog) -> float | None:
    """What a score was divided by, a token; None where it is not printed in full."""
    score = log.score
    if score is None or not usable(score) or round(score.val_bpb, 4) == score.val_bpb:
        return None
    return score.val_loss / math.log(2.0) / score.val_bpb


def _of_the_task(log: RunLog) -> bool:
    """Whether so many targets are the task's whole validation text, but for a tail."""
    tokens = log.tokens or 0
    return any(abs(whole - tokens) <= MAX_TAIL for whole in VALIDATION_TOKENS)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Number)
