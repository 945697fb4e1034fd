"""What a log says beside its results: settings, what was scored, how long each part took."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tools.strangers.log_lines import NUMBER, count

MAX_SETTINGS = 2_000
SETTING_CHARACTERS = 500

_SETTING = re.compile(r"\s{1,8}([A-Za-z_][\w.]{0,60}):(?: (.*))?$")
_PAIR = re.compile(r"([A-Za-z_][\w.]{0,60})[:=](.+)")
_MODIFIED = re.compile(r"\bmodified:\s?(.{1,400})")
_PHASES = {  # name: what a script says it spent there
    "gptq_reserve_s": re.compile(rf"gptq:reserving {NUMBER}s"),
    "hessians_s": re.compile(rf"gptq:(?:collected|calibrated).{{0,80}} in {NUMBER}s", re.I),
    "total_eval_s": re.compile(rf"total_eval_time:\s?{NUMBER}s"),
}
_OWN_PHASES = re.compile(rf"(\w{{1,30}}):{NUMBER}s\b")
_COUNTERS = ("warmup_step", "loop_warmup_step", "step", "warmup_cu_buckets")
_PART = re.compile(
    r"val_(doc|docs|token|tokens|doc_limit|docs_limit|token_limit|tokens_limit)|"
    r"(max|limit|num)_val_(docs?|tokens)|val_limit_(docs|tokens)",
    re.IGNORECASE,
)
_WHOLE_DOCS = {"", "0", "-1", "none", "all", "full", "50000"}


def setting(line: str) -> tuple[str, str] | None:
    """An indented row of hyperparameters: name and value."""
    match = _SETTING.match(line)
    return None if match is None else (match[1], (match[2] or "").strip())


def pairs(line: str) -> Iterator[tuple[str, str]]:
    """The pairs of a line of nothing but `name:value` or `name=value`, and of our first one, which
    may end in a sentence.
    """
    found = [_PAIR.fullmatch(word) for word in line.split()]
    for match in found if all(found) or line.startswith("recipe:") else ():
        if match is not None and match[1] not in _COUNTERS:
            yield match[1], match[2]


def stated_tokens(line: str) -> int | None:
    """The scored tokens that a header states, as val_tokens or beside the loader's pattern."""
    if "val_tokens" in line:
        return count(line, "val_tokens")
    if "target_tokens" in line:
        return count(line, "target_tokens")
    return count(line, "tokens") if line.startswith("val_loader:") else None


def phases(line: str) -> Iterator[tuple[str, float]]:
    """Seconds that the line says were spent on a part of the run."""
    if line.startswith("phases "):
        yield from ((name + "_s", float(value)) for name, value in _OWN_PHASES.findall(line))
    timed = line[:20].lower().startswith(("gptq:", "total_eval_time"))
    for name, pattern in _PHASES.items() if timed else ():
        if match := pattern.search(line):
            yield name, float(match[1])


def modified(line: str) -> str | None:
    match = _MODIFIED.search(line) if "modified:" in line else None
    return match[1].strip() if match else None


def part_of(settings: Mapping[str, str]) -> str | None:
    """The setting that says that a part of the validation text is scored, or None."""
    fraction = settings.get("val_doc_fraction", "1")
    if not re.fullmatch(r"1(\.0*)?", fraction):
        return f"val_doc_fraction {fraction}"
    for name, value in settings.items():
        limits = _PART.fullmatch(name) and name.lower() not in ("val_tokens", "val_docs")
        if limits and value.lower() not in _WHOLE_DOCS:
            return f"{name} {value:.40}"
    return None
