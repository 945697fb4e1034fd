"""The rules about runs: their logs, seeds, one configuration, one artifact each, their times."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from core.data.findings import Finding, Status
from core.score.rules import RUNS, found
from tools.checks.case import Case
from tools.checks.plain_json import NAME
from tools.checks.recipe import check_told, other_recipes, recipe_of
from tools.checks.seed_logs import SeedLog, disagreeing
from tools.checks.settings import unlike
from tools.checks.times import check_times
from tools.strangers.logs import usable

_BAD_STEP = re.compile(r"^bad_step:(\d{1,9})/", re.M)  # not finite, and not applied


def check_logs(case: Case) -> Iterator[Finding]:
    yield from _logs(case)
    yield from _seeds(case)
    yield from _configuration(case)
    yield from check_told(case)
    yield from _identity(case)
    yield from _contradictions(case)
    yield from check_times(case)


def _logs(case: Case) -> Iterator[Finding]:
    if not case.logs:
        yield found("logs", "FAIL", ".", "no log; expected train_seed<k>.log for every run")
        return
    claimed = case.submission.seeds if case.submission else []
    problems = [
        (NAME, f"names seed {seed}, and no log is of it")
        for seed in claimed
        if case.of_seed(seed) is None
    ]
    for log in case.logs:
        problems += [(log.name, said) for said in _unfinished(case, log)]
    for subject, said in problems:
        yield found("logs", "FAIL", subject, said)
    extra = [x for x in case.logs if claimed and x.log.seed not in (None, *claimed)]
    extra += case.others
    for log in extra:
        said = f"of seed {log.log.seed}, which {NAME} does not name"
        if log in case.others:
            said = f"the log of another run (seed {log.log.seed}), under a name of no seed"
        yield found("logs", "FAIL" if case.ours else "UNDECIDED", log.name, said)
    if not problems and not extra:
        yield found("logs", "PASS", ".", f"{len(case.logs)} logs, each with its last line")


def _unfinished(case: Case, log: SeedLog) -> Iterator[str]:
    """What is wrong with one log as a file."""
    score = log.log.score
    if log.unread:
        yield log.unread
        return
    if score is None:
        yield "no score after quantization: it ends too early, or is of something else"
    elif not usable(score):
        yield f"its score is no number: val_loss {score.val_loss}, val_bpb {score.val_bpb}"
    if (log.recipe_hash or case.ours) and not log.verdict:
        yield "its last line is not the last of a finished run"
    yield from _odd_lines(case, log)
    row = _row(case, log)
    digest = hashlib.sha256(log.data).hexdigest()
    if isinstance(told := row.get("log_sha256"), str) and told != digest:
        yield f"its SHA-256 is {digest[:16]}, {NAME} says {told[:16]}: changed since it was written"


def _odd_lines(case: Case, log: SeedLog) -> Iterator[str]:
    """Lines that cannot stand in the log of one good run."""
    odd = [step for step in log.log.steps if not math.isfinite(step.train_loss)]
    skipped = set(_BAD_STEP.findall(log.results)) if odd else set()
    for step in [step for step in odd if str(step.step) not in skipped][:1]:
        yield f"line {step.line}: train_loss {step.train_loss} in step {step.step}"
    sure = case.ours or log.recipe_hash is not None
    score = log.log.score
    if score is not None and (sure or score.label.startswith("final")):
        yield from disagreeing(log.log)


def _contradictions(case: Case) -> Iterator[Finding]:
    """What the last line of a log of ours says against the rest."""
    for log in case.logs:
        if log.over_the_cap:
            said = f"its last line says that it failed: {log.verdict_bytes:,} bytes, over the cap"
            yield found("cap", "FAIL", log.name, said)
        total = log.log.total_bytes
        if log.verdict_bytes is not None and total is not None and log.verdict_bytes != total:
            said = f"its last line says {log.verdict_bytes:,} bytes, its sizes {total:,}"
            yield found("model bytes", "FAIL", log.name, said)


def _row(case: Case, log: SeedLog) -> Mapping[str, Any]:
    results = case.submission.seed_results if case.submission else {}
    return results.get(-1 if log.log.seed is None else log.log.seed, {})


def _seeds(case: Case) -> Iterator[Finding]:
    seeds = [log.log.seed for log in case.logs]
    bad: list[tuple[Status, str, str]] = []
    for log in case.logs:
        bad += [("FAIL", log.name, note) for note in log.log.notes if note.startswith("its name")]
    twice = [seed for seed, n in Counter(seeds).items() if seed is not None and n > 1]
    bad += [("FAIL", ".", f"several logs are of seed {seed}") for seed in twice]
    ends = Counter((s.val_loss, s.val_bpb) for log in case.logs if (s := log.log.score))
    for pair, count in ends.items():
        if count > 1:
            said = f"{count} logs end in the same score, {pair[1]:.8f}: one run under two names?"
            bad.append(("FAIL", ".", said))
    if len(case.logs) < RUNS:
        said = f"{len(case.logs)} runs; a record shows {RUNS} of one configuration"
        bad.append(("FAIL" if case.record else "UNDECIDED", ".", said))
    if None in seeds:
        names = ", ".join(log.name for log in case.logs if log.log.seed is None)
        bad.append(("UNDECIDED", names, "no seed in its name or its text"))
    for status, subject, said in bad:
        yield found("seeds", status, subject, said)
    if not bad:
        yield found("seeds", "PASS", ".", f"{len(seeds)} runs: {', '.join(map(str, seeds))}")


def _configuration(case: Case) -> Iterator[Finding]:
    recipe = recipe_of(case)
    if isinstance(recipe, str):
        yield found("configuration", "FAIL", NAME, recipe)
        return
    bad = list(_differences(case))
    hashed = any(log.recipe_hash for log in case.logs)
    if recipe is None and hashed and case.submission is not None:
        said = "the logs are of recipes with a hash, and no golf.recipe says which: it was cut out"
        bad.append((NAME, f"{said}; golf submit writes it"))
    if recipe is not None:
        bad += other_recipes(case, recipe)
    for subject, said in bad:
        yield found("configuration", "FAIL", subject, said)
    if bad or not case.logs:
        return
    if recipe is not None:
        said = f"the recipe in {NAME}, with each seed, has the hash of its log"
        yield found("configuration", "PASS", ".", said)
    elif len(case.logs) < 2 or all(len(log.log.hyperparameters) < 5 for log in case.logs):
        said = "the logs do not tell enough of their settings to compare them"
        yield found("configuration", "UNDECIDED", ".", said)
    else:
        count = len(case.logs[0].log.hyperparameters)
        yield found("configuration", "PASS", ".", f"{count} logged settings are the same")


def _differences(case: Case) -> Iterator[tuple[str, str]]:
    """Settings of a log that are not those of the first."""
    if not case.logs:
        return
    first = case.logs[0].log.hyperparameters
    for log in case.logs[1:]:
        held = log.log.hyperparameters
        if odd := list(unlike(first, held)):
            shown = "; ".join(
                f"{name} {held.get(name, 'not told')!s:.40} and {first.get(name, 'not told')!s:.40}"
                for name in odd[:4]
            )
            yield log.name, f"{len(odd)} settings differ from {case.logs[0].name}: {shown}"
        if log.log.embedded_source != case.logs[0].log.embedded_source:
            yield log.name, f"the source at its start is not that of {case.logs[0].name}"


def _identity(case: Case) -> Iterator[Finding]:
    bad, missing = [], 0
    for log in case.logs:
        told, claim = log.identities, _row(case, log).get("identity")
        if not told and claim is None:
            missing += 1
        elif len(set(told)) != 1:
            bad.append((log.name, f"{len(set(told))} identities in the log, expected one"))
        elif claim != told[0] and (claim is not None or case.ours):
            said = f"the log's artifact is {told[0][:16]}, {NAME} has {claim!s:.16}"
            bad.append((log.name, said))
    known = Counter(log.identities[0] for log in case.logs if log.identities)
    for identity, count in known.items():
        if count > 1:
            bad.append((".", f"{count} runs have the artifact {identity[:16]}"))
    for subject, said in bad:
        yield found("identity", "FAIL", subject, said)
    if missing:
        said = f"{missing} logs name no artifact: only running the script binds them to one"
        yield found("identity", "UNDECIDED", ".", said)
    elif case.logs and not bad:
        yield found("identity", "PASS", ".", f"{len(case.logs)} artifacts, one for each log")
