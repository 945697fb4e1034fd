"""Settings of two runs: which of them may differ although the runs are of one configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# What a run is called, and what it measured before its first step. `hash` covers the seed.
_OF_A_RUN = re.compile(
    r"(\w+[_.])?seed|hash|(local_|node_|global_)?rank|(master_)?(port|addr|host)(name)?|"
    r"(\w+_)?(run|job|node|exp|experiment|commit|process|slurm_job|wandb_run)_?(id|name)|pid|"
    r"(log|out|output|save|run|ckpt|checkpoint|model|artifact|quantized\w*|cache|wandb|result|"
    r"results|trace|profile|tmp|temp|work)_?(path|dir|folder|file|filename|name|root)s?|logfile|"
    r"(start|end|launch)_time|timestamp|date|time",
    re.IGNORECASE,
)
_PLACE = re.compile(r".*(path|dir|folder|file|pattern|root|datasets?)s?", re.IGNORECASE)
_DURATION = re.compile(r"\d+(\.\d+)?\s?(ms|s|m)\b.*")


def unlike(first: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    """The names of the settings that are not the same."""
    for name in {**first, **other}:
        if not _OF_A_RUN.fullmatch(name) and not _same(name, first.get(name), other.get(name)):
            yield name


def _same(name: str, one: str | None, two: str | None) -> bool:
    if one == two:
        return True
    if one is None or two is None:
        return False
    if name.endswith("_time"):
        return bool(_DURATION.fullmatch(one) and _DURATION.fullmatch(two))  # measured
    return bool(_PLACE.fullmatch(name)) and _last(one) == _last(two)


def _last(path: str) -> list[str]:
    """What a path names, wherever it lies: its last part, of a pattern the folder too."""
    parts = [part for part in re.split(r"[/\\]+", path.rstrip("/\\")) if part]
    return parts[-2:] if "*" in path else parts[-1:]
