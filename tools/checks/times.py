"""The rules about time and hardware: what a run may take, and where a record is made."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.data.findings import Finding, Status
from core.score.rules import ACCEPTED_S, EVAL_S, OVERRUN_S, TRAIN_S, WORLD_SIZE, found
from tools.checks.case import Case
from tools.checks.seed_logs import SeedLog

UNLIMITED = re.compile(r"unlimited[ -]compute", re.I)
ROUNDED_MS = 6_000.0  # of times that are printed in minutes


def check_times(case: Case) -> Iterator[Finding]:
    for log in case.logs:
        yield _training_time(case, log)
        yield _evaluation_time(case, log)
    yield from _hardware(case)


def _training_time(case: Case, log: SeedLog) -> Finding:
    told = log.log.train_time_ms
    if told is None:
        return found("training time", "UNDECIDED", log.name, "not told")
    on_the_way = [(x.train_time_ms or 0.0, x.line) for x in log.log.steps]
    on_the_way += [(x.train_time_ms or 0.0, x.line) for x in log.log.vals]
    longest, at = max(on_the_way, default=(0.0, 0))
    longest = max(told, longest)
    if longest > 1.01 * told + ROUNDED_MS:
        said = f"line {at} says {longest / 1000.0:.3f} s, its last line of training only "
        return found("training time", "FAIL", log.name, f"{said}{told / 1000.0:.3f} s")
    seconds, over = longest / 1000.0, longest / 1000.0 - TRAIN_S
    printed = [step.step_avg_ms for step in log.log.steps if step.step_avg_ms is not None]
    step_s = (printed[-1] if printed else log.log.step_avg_ms or 0.0) / 1000.0
    said = f"{seconds:.3f} of {TRAIN_S:.0f} s"
    if over <= 0:
        return found("training time", "PASS", log.name, said)
    room_s = max(2 * step_s, ACCEPTED_S)  # the last steps are slower than the average
    if over <= min(room_s, OVERRUN_S):
        return found("training time", "PASS", log.name, f"{said}: the step that crosses the cap")
    if not case.record and UNLIMITED.search(_readme(case)):
        said += "; the README says unlimited compute"
        return found("training time", "UNDECIDED", log.name, said)
    return found("training time", "FAIL", log.name, f"{said}: {over:.3f} s over")


def _evaluation_time(case: Case, log: SeedLog) -> Finding:
    if log.eval_ms is None:
        return found("evaluation time", "UNDECIDED", log.name, "not told")
    seconds = log.eval_ms / 1000.0
    said = f"{seconds:.1f} of {EVAL_S:.0f} s"
    whole = log.log.phases_s.get("score_s", 0.0)
    times = len(log.log.finals) + len(log.log.vals)
    known_ms = (x.eval_time_ms for x in log.log.finals if x.eval_time_ms is not None)
    expected = times * max(known_ms, default=log.eval_ms) / 1000.0
    if whole > EVAL_S and whole > 3 * expected:  # each validation on the way takes as long
        said = f"its phases say {whole:.1f} s of scoring, its lines {times} scores of {seconds:.1f}"
        return found("evaluation time", "FAIL", log.name, f"{said} s")
    if seconds > EVAL_S:
        return found("evaluation time", "FAIL" if case.record else "UNDECIDED", log.name, said)
    return found("evaluation time", "PASS", log.name, said)


def _readme(case: Case) -> str:
    entry = case.folder.file("README.md")
    return case.folder.read(entry, 1 << 20).decode("utf-8", "replace") if entry else ""


def _hardware(case: Case) -> Iterator[Finding]:
    if not case.record:
        return
    sizes = {log.log.world_size for log in case.logs}
    told = str(case.submission.fields.get("hardware", "")) if case.submission else ""
    named = "H100" in told or any("H100" in log.results for log in case.logs)
    status: Status = "PASS" if sizes == {WORLD_SIZE} and named else "UNDECIDED"
    if others := [size for size in sizes if size not in (None, WORLD_SIZE)]:
        status = "FAIL"
        said = f"{', '.join(map(str, others))} ranks in a log; a record is made on {WORLD_SIZE}"
        yield found("hardware", status, ".", said)
        return
    ranks = "no" if sizes <= {None} else str(WORLD_SIZE)
    said = f"{ranks} ranks in the logs, H100 {'named' if named else 'not named'}"
    yield found("hardware", status, ".", said)
