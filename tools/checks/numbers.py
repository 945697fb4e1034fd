"""Every number of submission.json beside the scores, held to its seed and to what it is called."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from core.data.findings import Finding, Status
from core.score.rules import found
from core.score.stats import sample
from tools.checks.bytes import CODE_CLAIMS, TOTAL_CLAIMS, itemise, model_bytes, sum_of
from tools.checks.case import Case
from tools.checks.plain_json import INDEX, NAME, SCORES, Number, agrees, decimals
from tools.checks.seed_logs import SeedLog, spread

MAX_TOKENS = 500_000  # numbers of all logs that claims of no known meaning are looked up in
SHOWN = 20  # claims that no log holds, told one by one
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,20})?(?:e[-+]?\d{1,3})?")
_RAW = re.compile(r"\bval_bpb_raw:(\d{1,9}\.\d{1,20})")
_ELSEWHERE = (*CODE_CLAIMS, *TOTAL_CLAIMS, "seeds", "golf")  # other rules look at these
_STAGE = r"(final|exact|quantized|post_quant|int\d|roundtrip|sliding|ttt)\w*"
_UNIT = r"(_(s|sec|secs|seconds|ms))?"
# What a run has measured, by the names in use; the first that fits.
_MEANINGS = {
    "pre": re.compile(r"(\w+_)?pre_?quant\w*_(loss|bpb)|pre_?quant\w*"),
    "raw": re.compile(r"(\w+_)?val_bpb_raw"),
    "val_loss": re.compile(rf"({_STAGE}_)?val_loss(_{_STAGE})?"),
    "val_bpb": re.compile(rf"({_STAGE}_)?val_bpb(_{_STAGE})?"),
    "steps": re.compile(r"(num_|last_|stop_|train_|training_)?steps?|steps?_(stop|run|done)"),
    "train_ms": re.compile(
        rf"(train|training)(_time|_wallclock|_wall_clock|_wall)?{_UNIT}|wall_?clock{_UNIT}"
    ),
    "eval_ms": re.compile(rf"(eval|evaluation|scoring)(_time|_wallclock)?{_UNIT}"),
    "step_ms": re.compile(r"step_avg(_ms)?|ms_per_step|(avg_)?step_(time_)?ms"),
    "code": re.compile(r"bytes_code|code_(size_)?bytes"),
    "model": re.compile(r"bytes_(compressed_)?model|(compressed_)?model_(size_)?bytes"),
    "total": re.compile(r"bytes_(total|artifact)|(artifact|total|submission)_(size_)?bytes"),
    "tokens": re.compile(r"tokens|targets|(val|scored|eval)_tokens"),
    "bytes": re.compile(r"bytes|(val|scored|eval)_bytes"),
}
_SETTABLE = ("steps", "train_ms", "eval_ms")  # max_steps is a setting, not what was measured
_AROUND = re.compile(r"^(mean|avg|average|min|max|worst|best|std)_|_(mean|avg|std|sd|min|max)$")
_SD = re.compile(r"(^|_)(std|sd|stdev)(_|$)")
_MEAN = re.compile(r"(^|_)(mean|avg|average)(_|$)")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number, the names that lead to it, and the log of the seed among them."""

    names: tuple[str, ...]
    value: Number
    log: SeedLog | None

    @property
    def name(self) -> str:
        return next((x for x in reversed(self.names) if not INDEX.fullmatch(x)), "").lower()


def check_numbers(case: Case) -> Iterator[Finding]:
    if case.submission is None:
        return
    code = sum_of(itemise(case), "counted")
    told = {log.name: _told(case, log, code) for log in case.logs}
    known: list[float] | None = None
    claims = list(_claims(case))
    bad: list[tuple[Status, Claim, str]] = []
    for claim in claims:
        meaning = _meaning(claim.name)
        if meaning and any(one[meaning] for one in told.values()):
            if (odd := _unlike(claim, meaning, told)) is not None:
                bad.append((odd[0], claim, odd[1]))
            continue
        if known is None:
            known = sorted({*_logged(case), *_derived(case, told)})
        if not _holds(known, claim.value):
            bad.append(("UNDECIDED", claim, "stands in no log and follows from none"))
    bad.sort(key=lambda one: one[0])
    for status, claim, said in bad[:SHOWN]:
        where = f"{NAME}: {'.'.join(claim.names)}"[:120]
        yield found("numbers", status, where, f"{claim.value} {said}")
    if len(bad) > SHOWN:
        yield found("numbers", "UNDECIDED", NAME, f"{len(bad) - SHOWN} more stand in no log")
    if not bad:
        yield found("numbers", "PASS", NAME, f"{len(claims)} numbers beside the scores")


def _claims(case: Case) -> Iterator[Claim]:
    assert case.submission is not None
    rows: dict[tuple[str, ...], int | None] = {x.path: x.seed for x in case.submission.rows}
    of_seed = {log.log.seed: log for log in case.logs}
    for names, value in case.submission.numbers():
        if names[0] in _ELSEWHERE or _is_score(names, value) or names[-1] == "seed":
            continue
        seed = rows.get(names[:2])
        if seed is None:
            keys = (int(name) for name in names[:-1] if re.fullmatch(r"[1-9]\d{0,14}|0", name))
            seed = next((key for key in keys if key in of_seed), None)
        yield Claim(names=names, value=value, log=None if seed is None else of_seed.get(seed))


def _meaning(name: str) -> str | None:
    bare = _AROUND.sub("", name)
    setting = bare != name and not (_MEAN.search(name) or _SD.search(name))
    for meaning, pattern in _MEANINGS.items():
        if pattern.fullmatch(name) or pattern.fullmatch(bare):
            return None if setting and meaning in _SETTABLE else meaning
    return None


def _told(case: Case, log: SeedLog, code: int) -> dict[str, list[float]]:
    """What one log says, by meaning; times in milliseconds."""
    run, model = log.log, model_bytes(log)
    before = [x for x in run.finals if not x.after_quantization]
    evals = [x.eval_time_ms for x in run.finals if x.after_quantization]
    averages = [x.step_avg_ms for x in run.steps] + [x.step_avg_ms for x in run.vals]
    scores = {
        name: [getattr(x, name) for x in run.finals] + [getattr(x, name) for x in run.vals[-1:]]
        for name in SCORES
    }
    sizes = [] if case.ours else [x.bytes for x in run.sizes]
    held: dict[str, Sequence[float | None]] = {
        "pre": [value for x in before for value in (x.val_loss, x.val_bpb)]
        + [value for x in run.vals[-1:] for value in (x.val_loss, x.val_bpb)],
        "raw": [float(text) for text in _RAW.findall(log.results)],
        **scores,
        "steps": [run.last_step],
        "train_ms": [run.train_time_ms],
        "eval_ms": [log.eval_ms] if case.ours else [log.eval_ms, *evals],
        "step_ms": [run.step_avg_ms, *averages],
        "code": [run.code_bytes, code, *sizes],
        "model": [model, *sizes],
        "total": [run.total_bytes, None if model is None else model + code, *sizes],
        "tokens": [run.tokens, run.stated_tokens],
        "bytes": [run.bytes],
    }
    bounded = {k: [x for x in v if x is not None and abs(x) < 1e15] for k, v in held.items()}
    return {name: [float(x) for x in values] for name, values in bounded.items()}


def _unlike(
    claim: Claim, meaning: str, told: dict[str, dict[str, list[float]]]
) -> tuple[Status, str] | None:
    """How a claim differs from what the logs say in its place; None where it does not."""
    if claim.log is not None:
        values, whose = told[claim.log.name][meaning], claim.log.name
    else:
        values, whose = _of_all(claim.name, meaning, told), "the logs"
    if not values:
        return "UNDECIDED", f"is told by no line of {whose}"
    shown = [value * scale for scale in _scales(claim.name, meaning) for value in values]
    none = claim.value == 0 and _SD.search(claim.name)  # no spread, where there is some
    if any(agrees(claim.value, value) and not (none and value) for value in shown):
        return None
    said = ", ".join(f"{value:.{max(3, decimals(claim.value))}f}" for value in shown[:3])
    return "FAIL", f"is not what {whose} tell: {said}"


def _scales(name: str, meaning: str) -> Sequence[float]:
    """Of milliseconds, by the unit in the name; without one it may be either."""
    if meaning not in ("train_ms", "eval_ms"):
        return (1.0,)
    unit = name.rsplit("_", 1)[-1]
    if unit == "ms":
        return (1.0,)
    return (0.001,) if unit in ("s", "sec", "secs", "seconds") else (1.0, 0.001)


def _of_all(name: str, meaning: str, told: dict[str, dict[str, list[float]]]) -> list[float]:
    """What may be said of all runs together under this name."""
    firsts = zip(*(one[meaning] for one in told.values()), strict=False)
    groups = [list(group) for group in firsts]  # the same line of every log
    lasts = [list(x) for x in zip(*(one[meaning][::-1] for one in told.values()), strict=False)]
    sets = [group for group in (*groups, *lasts) if group]
    if _SD.search(name):
        return [sd for group in sets if len(group) > 1 for sd in spread(group)[1:3]]
    means = [sample(group).mean for group in sets]
    if _MEAN.search(name):
        return means
    return [*(value for one in told.values() for value in one[meaning]), *means]


def _logged(case: Case) -> Iterator[float]:
    """Numbers as the logs print them, without the source before them."""
    room = MAX_TOKENS
    for log in case.logs:
        for match in _NUMBER.finditer(log.results.replace(",", "")):
            yield float(match[0])
            room -= 1
            if not room:
                return


def _derived(case: Case, told: dict[str, dict[str, list[float]]]) -> Iterator[float]:
    """What follows from the logs, for numbers whose names say nothing that is known."""
    names = {name for one in told.values() for name in one}
    for name in names:
        values = [one[name][-1] for one in told.values() if one[name]]
        yield from chain(values, spread(values))
    yield float(len(case.logs))


def _holds(known: list[float], claim: Number) -> bool:
    """Whether a number is among the known, rounded to the digits of the claim."""
    size = abs(float(claim))
    room = 0.5 * 10.0 ** -decimals(claim) * (1 + 1e-6) + 1e-12 * size
    at = bisect_left(known, size - room)
    return at < len(known) and known[at] <= size + room


def _is_score(names: tuple[str, ...], value: Number) -> bool:
    """Whether the rule on scores looks at what these names lead to."""
    if names[0] == "seed_results":
        return (len(names) == 2 and not isinstance(value, int)) or (
            len(names) == 3 and names[2] in SCORES
        )
    return len(names) == 1 and names[0].removeprefix("mean_") in SCORES
