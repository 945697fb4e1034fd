"""What a scorer's process reached for: validation files, the network, files of others."""

from __future__ import annotations

from collections.abc import Sequence

from core.data.findings import Finding, Status
from core.score.rules import SCORER_BY_ID
from tools.auditing.driver import NETWORK, PROGRAMS
from tools.auditing.stranger import Event, Watched

SHOWN = 3


def check_access(subject: str, watched: Watched) -> list[Finding]:
    """An attempt is a FAIL, also where it was refused; none is a PASS where the system held it."""
    events = watched.events
    opened = [e for e in events if e.event in ("validation", "open", "missing")]
    early = [e for e in opened if e.phase == "start" and _is_validation(e)]
    network = [e for e in events if e.event in NETWORK]
    foreign = [e for e in opened if e.event == "open"]
    shut = watched.files_held and not watched.own_validation  # also to what is not Python
    told = {
        "before the clock": (early, "no validation file was opened", shut),
        "no network": (network, "nothing was called", watched.network_held),
        "own files": (foreign, "nothing outside of the submission was opened", watched.files_held),
    }
    findings = []
    for rule, (attempts, none, held) in told.items():
        status, said = _judged(attempts, none, _by(rule, held, watched), held, watched)
        if rule == "own files" and status == "PASS" and (asked := _missing(events)):
            status, said = "UNDECIDED", f"it asked for files that are not here: {asked}"
        findings.append(_say(rule, status, subject, said))
    return findings


def unwatched(subject: str) -> list[Finding]:
    """For a scorer of this toolkit, which runs in the toolkit's own process."""
    said = "not seen: a scorer of this toolkit, in the toolkit's own process"
    rules = ("before the clock", "no network", "own files")
    return [_say(rule, "UNDECIDED", subject, said) for rule in rules]


def _judged(
    attempts: Sequence[Event], none: str, by: str, held: bool, watched: Watched
) -> tuple[Status, str]:
    if attempts:
        return "FAIL", f"{_listed(attempts)}; watched by {by}"
    programs = [e for e in watched.events if e.event in PROGRAMS]
    said = f"{none}; {by} would have told"
    if programs:
        said += f"; it started programs: {_listed(programs)}"
    return ("PASS" if held else "UNDECIDED"), said


def _by(rule: str, held: bool, watched: Watched) -> str:
    """What held the process and what only watched it."""
    trap = "a trap in its Python"
    if held:
        network = rule == "no network"
        return f"the system ({watched.network if network else watched.files}) and {trap}"
    own = rule == "before the clock" and watched.own_validation and watched.files_held
    return f"{trap} alone{': the folder has such a file' if own else ''}"


def _is_validation(event: Event) -> bool:
    return event.event == "validation"


def _missing(events: Sequence[Event]) -> str:
    return _listed([e for e in events if e.event == "missing"])


def _listed(events: Sequence[Event]) -> str:
    shown = [f"{e.event} {e.what} ({_when(e)})" for e in events[:SHOWN]]
    more = f" and {len(events) - SHOWN} more" if len(events) > SHOWN else ""
    return ", ".join(shown) + more


def _when(event: Event) -> str:
    return "before the clock" if event.phase == "start" else "while scoring"


def _say(rule: str, status: Status, subject: str, evidence: str) -> Finding:
    source = SCORER_BY_ID[rule].source
    return Finding(rule=rule, status=status, subject=subject, evidence=evidence, source=source)
