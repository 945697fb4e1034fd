"""The runs of a submission: read, and refused where they are not runs of one configuration."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from core.artifact.container import inspect
from core.artifact.ledger import CAP_BYTES
from core.score.rules import RUNS
from core.train.recipe import Recipe, recipe_hash
from core.train.run_folder import load_recipe
from tools.bundling.script import elsewhere
from tools.strangers.log_lines import FinalLine
from tools.strangers.logs import MAX_BYTES, RunLog, read_text, usable

_VERDICT = re.compile(r"^(?:fits|failed: over the cap): artifact_bytes:\d+ ")
# Its last words may be sentences, as why a kernel was chosen.
_START = re.compile(
    r"^recipe:\S+ hash:[0-9a-f]+ seed:(?P<seed>\d+) backend:(?P<backend>\w+) "
    r"device:(?P<device>.{1,200}?) precision:",
    re.M,
)
_IDENTITY = re.compile(r"^identity:([0-9a-f]{64})$", re.M)
# An absolute path wherever it begins: behind a space, a quote, an equals sign or a colon.
_PATH = re.compile(r"(?<![\w./~\\])(?:~[\w.-]*|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:)\]}]+)+[/\\]?")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run; its log without paths of this machine."""

    folder: Path
    recipe: Recipe
    text: str
    model: bytes

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def name(self) -> str:
        """Of the log as it is shipped."""
        return f"train_seed{self.seed}.log"

    @cached_property
    def log(self) -> RunLog:
        return read_text(self.text, self.name)

    @property
    def score(self) -> FinalLine:
        score = self.log.score
        assert score is not None, "a run without one is refused"
        return score

    @cached_property
    def identity(self) -> str:
        told: str = inspect(self.model)["identity"]
        return told

    @cached_property
    def start(self) -> dict[str, str]:
        """Seed, backend and device, as the log says them."""
        found = _START.search(self.text)
        return found.groupdict() if found else {}

    @property
    def backend(self) -> str:
        return self.start.get("backend", "")

    @property
    def model_sha256(self) -> str:
        return hashlib.sha256(self.model).hexdigest()


def load_runs(folders: Sequence[Path], few: bool) -> list[Run]:
    """The runs in the order of their seeds; ValueError unless they are one configuration's."""
    if len(folders) < RUNS and not few:
        raise ValueError(
            f"{len(folders)} runs; a submission shows {RUNS} or more of one configuration with "
            "different seeds. --few allows fewer where it is no record"
        )
    runs = [_load(folder) for folder in folders]
    for run in runs:
        _need_finished(run)
        _need_own_artifact(run)
    _need_one_configuration(runs)
    twice = [seed for seed, count in Counter(run.seed for run in runs).items() if count > 1]
    if twice:
        names = ", ".join(str(run.folder) for run in runs if run.seed == twice[0])
        raise ValueError(f"{names}: all of seed {twice[0]}; expected different seeds")
    return sorted(runs, key=lambda run: run.seed)


def need_room(runs: Sequence[Run], code_bytes: int) -> None:
    """ValueError where the worst seed is over the cap with the code that is shipped."""
    worst = max(runs, key=lambda run: len(run.model))
    total = len(worst.model) + code_bytes
    if total > CAP_BYTES:
        raise ValueError(
            f"{worst.folder}: model {len(worst.model):,} + code {code_bytes:,} = {total:,} bytes, "
            f"{total - CAP_BYTES:,} over {CAP_BYTES:,}; pack smaller, or train a smaller model"
        )
    for run in runs:
        if run.log.code_bytes != code_bytes:
            raise ValueError(
                f"{run.folder}: its log counts {run.log.code_bytes:,} bytes of code, and the "
                f"bundle that would be shipped has {code_bytes:,}: the toolkit has changed since. "
                "Submit with the version that trained the runs, or train them again"
            )


def without_paths(text: str, recipe: Recipe) -> str:
    """The text with each path of this machine replaced by the last part of it."""
    there = elsewhere(recipe).data
    for old, new in ((recipe.data.path, there.path), (recipe.data.tokenizer, there.tokenizer)):
        if old != new:
            text = text.replace(old, new)
    return _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)


def _load(folder: Path) -> Run:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder; training leaves runs/<run id>")
    recipe = load_recipe(folder)
    for name in ("log.txt", "model.bin"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not finished: it has no {name}")
    if (folder / "log.txt").stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{folder}/log.txt has more than {MAX_BYTES:,} bytes, the most that is read of a log; "
            "log fewer steps"
        )
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    model = (folder / "model.bin").read_bytes()
    text = without_paths(text, recipe)
    return Run(folder=folder, recipe=recipe, text=text, model=model)


def _need_finished(run: Run) -> None:
    log, score = run.log, run.log.score
    last = run.text.rstrip().rsplit("\n", 1)[-1]
    if score is None or not _VERDICT.match(last):
        raise ValueError(f"{run.folder} is not finished: its log does not end as a run ends")
    if not usable(score):
        raise ValueError(f"{run.folder}: its score is no number ({score.val_bpb})")
    if log.modified:
        raise ValueError(f"{run.folder}: the scored model was modified ({log.modified:.80})")
    if log.subset or run.recipe.score.subset != "full" or run.recipe.score.limit_tokens:
        raise ValueError(
            f"{run.folder}: its score is of a subset, an estimate; train with --full or "
            "score.subset=full"
        )
    if (seed := run.start.get("seed")) != str(run.seed):
        raise ValueError(f"{run.folder}: recipe.json says seed {run.seed}, its log {seed}")


def _need_own_artifact(run: Run) -> None:
    """The artifact in the folder is the one whose score the log ends in."""
    told = set(_IDENTITY.findall(run.text))
    try:
        held = run.identity
    except ValueError as error:
        raise ValueError(f"{run.folder}/model.bin: {error}") from None
    if told != {held}:
        said = ", ".join(sorted(one[:16] for one in told)) or "none"
        raise ValueError(
            f"{run.folder}: model.bin is {held[:16]}, its log scored {said}: "
            "not the artifact of this run"
        )
    if run.log.model_bytes != len(run.model):
        raise ValueError(
            f"{run.folder}: model.bin has {len(run.model):,} bytes, its log says "
            f"{run.log.model_bytes}: packed anew since it was scored"
        )


def _need_one_configuration(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        hashes = [recipe_hash(replace(one.recipe, seed=0))[:8] for one in (first, run)]
        if hashes[0] != hashes[1]:
            raise ValueError(
                f"{first.folder} and {run.folder} are of different configurations: recipe "
                f"{hashes[0]} and {hashes[1]} without the seed"
            )
        places = [
            (one.backend, one.start.get("device"), one.log.world_size) for one in (first, run)
        ]
        if places[0] != places[1]:
            raise ValueError(
                f"{first.folder} and {run.folder} ran differently: engine, device and ranks were "
                f"{places[0]} and {places[1]}"
            )
