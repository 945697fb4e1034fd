"""The rules about numbers: the score, what it was taken over, and every other number told."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain
from typing import Any

from core.data.findings import Finding, Status
from core.score.rules import VALIDATION_BYTES, found
from core.score.stats import sample
from tools.checks.bytes import CODE_CLAIMS, TOTAL_CLAIMS, itemise, model_bytes, sum_of
from tools.checks.case import Case, SeedLog, spread
from tools.checks.plain_json import NAME, Number, agrees, decimals
from tools.strangers.logs import usable

SCORES = ("val_loss", "val_bpb")
DECIMALS = 4  # that a score needs, for its digits to say anything
MAX_TOKENS = 2_000_000  # numbers of all logs that claims are looked up in
SHOWN = 20  # claims that no log holds, told one by one
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,20})?(?:e[-+]?\d{1,3})?")
# What a run has measured, by the names in use: such a number has to stand in a log.
_MEASURED = re.compile(
    r"(mean_|avg_|min_|max_|worst_|best_|pre_quant_)*(val_(loss|bpb)(_raw)?|bytes_\w+|"
    r"(artifact|code|model|total)_bytes|steps?|step_avg_ms|ms_per_step|"
    r"(train|eval)\w*_(s|ms|seconds)|wallclock_seconds|step_stop)(_mean|_std|_min|_max)?"
)
_ELSEWHERE = (*CODE_CLAIMS, *TOTAL_CLAIMS, "seeds", "golf")  # other rules look at these


def check_score(case: Case) -> Iterator[Finding]:
    yield from _score(case)
    yield from _numbers(case)
    yield from _whole_split(case)
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
    for seed, row in case.submission.seed_results.items():
        log = case.of_seed(seed)
        for name in SCORES:
            if _is_number(row.get(name)) and log is not None:
                findings.append(_of_seed(log, seed, name, row[name]))
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
        return found("score", "UNDECIDED", where, said)
    said = f"{claim}, the mean of the logs is {mean:.{max(8, decimals(claim))}f}"
    return found("score", "FAIL", where, said + _other_line(case.logs, name, claim))


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


def _numbers(case: Case) -> Iterator[Finding]:
    if case.submission is None:
        return
    known = sorted({*_logged(case), *_derived(case)})
    claims = [
        (names, value)
        for names, value in case.submission.numbers()
        if names[0] not in _ELSEWHERE and not _is_score(names)
    ]
    lost = [(names, value) for names, value in claims if not _holds(known, names[-1], value)]
    for names, value in lost[:SHOWN]:
        status: Status = "FAIL" if _MEASURED.fullmatch(names[-1]) else "UNDECIDED"
        where = f"{NAME}: {'.'.join(names)}"[:120]
        yield found("numbers", status, where, f"{value} stands in no log and follows from none")
    if len(lost) > SHOWN:
        yield found("numbers", "UNDECIDED", NAME, f"{len(lost) - SHOWN} more stand in no log")
    if not lost:
        yield found("numbers", "PASS", NAME, f"{len(claims)} numbers beside the scores")


def _logged(case: Case) -> Iterator[float]:
    """Numbers as the logs print them, without the source before them."""
    room = MAX_TOKENS
    for log in case.logs:
        for match in _NUMBER.finditer(log.results.replace(",", "")):
            yield float(match[0])
            room -= 1
            if not room:
                return


def _derived(case: Case) -> Iterator[float]:
    """What follows from the logs: seconds from milliseconds, sums, and means over the runs."""
    code = sum_of(itemise(case), "counted")
    told: dict[str, list[float]] = {name: case.values(name) for name in SCORES}
    for log in case.logs:
        model = model_bytes(log)
        of_log: dict[str, Any] = {
            "model": model,
            "shipped": None if model is None else model + code,
            "total": log.log.total_bytes,
            "code": log.log.code_bytes,
            "steps": log.log.last_step,
            "step_ms": log.log.step_avg_ms,
            "train_s": None if log.log.train_time_ms is None else log.log.train_time_ms / 1000.0,
            "eval_s": None if log.eval_ms is None else log.eval_ms / 1000.0,
        }
        for final in log.log.finals:
            of_log |= {f"{final.label} {name}": getattr(final, name) for name in SCORES}
        for name, value in of_log.items():
            if value is not None and abs(value) < 1e15:
                told.setdefault(name, []).append(float(value))
    yield from chain.from_iterable((*values, *spread(values)) for values in told.values())
    yield float(len(case.logs))
    yield from (float(entry.size) for entry in case.folder.files)


def _holds(known: list[float], name: str, claim: Number) -> bool:
    """Whether a number is among the known, rounded to the digits of the claim."""
    size = abs(float(claim))
    room = 0.5 * 10.0 ** -decimals(claim) * (1 + 1e-6) + 1e-12 * size
    at = bisect_left(known, size - room)
    if at < len(known) and known[at] <= size + room:
        return True
    if not name.endswith(("_s", "seconds")):
        return False
    at = bisect_left(known, 1000.0 * (size - room))
    return at < len(known) and known[at] <= 1000.0 * (size + room)


def _whole_split(case: Case) -> Iterator[Finding]:
    bad = []
    for log in case.logs:
        if log.log.subset:
            bad.append((log.name, f"its score is of a subset: {log.log.subset[:80]}"))
        if log.log.modified:
            bad.append((log.name, f"the scored model was modified: {log.log.modified[:80]}"))
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


def _implied(case: Case) -> Iterator[Finding]:
    for log in case.logs:
        implied = log.log.implied_bytes
        if implied is None:
            said = "tokens, val_loss and val_bpb are not all told"
            yield found("implied bytes", "UNDECIDED", log.name, said)
        else:
            yield _implied_of(case, log, implied)


def _implied_of(case: Case, log: SeedLog, implied: float) -> Finding:
    score, told = log.log.score, log.log.bytes
    assert score is not None
    rounded = all(round(x, 4) == x for x in (score.val_loss, score.val_bpb))
    room = 2.0 + implied * (1e-4 if rounded else 2e-8)  # what the printed digits leave open
    said = f"{implied:,.0f} bytes implied"
    if told is not None and abs(told - implied) > room:
        said += f", {told:,} told: loss, BPB, tokens and bytes do not fit together"
        return found("implied bytes", "FAIL", log.name, said)
    low, high = VALIDATION_BYTES
    if low - room <= implied <= high + room:
        return found("implied bytes", "PASS", log.name, f"{said}, as of the task's validation text")
    said += f"; the task's validation text gives {low:,} to {high:,}"
    if told is not None and not case.record:
        said += ": another text, whose score compares with nothing on the leaderboard"
        return found("implied bytes", "UNDECIDED", log.name, said)
    return found("implied bytes", "FAIL", log.name, said)


def _is_score(names: tuple[str, ...]) -> bool:
    """Whether the rule on scores looks at what these names lead to."""
    if names[0] == "seed_results":
        return len(names) == 3 and names[2] in SCORES
    return len(names) == 1 and names[0].removeprefix("mean_") in SCORES


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Number)
