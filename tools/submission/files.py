"""The files of a records folder, made from runs alone: the same runs give the same bytes."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.arch.fields import to_plain
from core.data.export import read_manifest
from core.data.tokenizer import tokenizer_of
from core.score.rules import TASK_TOKENIZERS, VALIDATION_BYTES, WORLD_SIZE
from core.score.stats import sample
from tools.bundling.script import bundle, elsewhere, readable
from tools.submission.readme import readme
from tools.submission.runs import Run, need_room

RECORD, NON_RECORD = "10min_16mb", "non_record_16mb"
TRACKS = (RECORD, NON_RECORD)
MAX_TOKENIZER_BYTES = 16 << 20
REQUIREMENTS = {  # what a bundle may import, as pyproject.toml asks for it
    "torch": "torch>=2.9",
    "mlx": "mlx>=0.32.4",
    "numpy": "numpy>=1.26",
    "sentencepiece": "sentencepiece>=0.2.3",
    "safetensors": "safetensors>=0.4",
    "brotli": "brotli>=1.2",
    "zstandard": "zstandard>=0.22",
}


@dataclass(frozen=True, kw_only=True)
class About:
    """What no run tells."""

    author: str
    github_id: str
    name: str
    blurb: str
    track: str
    date: str  # as 2026-03-18
    hardware: str = ""  # more than a log says, as 8xH100 80GB SXM
    unlimited: bool = False  # compute, in a submission that is no record

    @property
    def place(self) -> str:
        """Where the folder stands in a repository of records."""
        plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", self.name).strip("_.") or "submission"
        return f"records/track_{self.track}/{self.date}_{plain[:80]}"


def track_of(runs: Sequence[Run]) -> str:
    """The record track where its hardware and validation text were used, else the other one."""
    low, high = VALIDATION_BYTES
    for run in runs:
        told = run.log
        if told.lossy or told.world_size != WORLD_SIZE or not low <= (told.bytes or 0) <= high:
            return NON_RECORD
    return RECORD


def folder_files(runs: Sequence[Run], about: About, tokenizer: Path | None) -> dict[str, bytes]:
    """Name -> content. ValueError where the code does not fit or the tokenizer is not there."""
    first = runs[0]
    script = bundle(first.recipe, "torch").script
    need_room(runs, len(script))
    model = _tokenizer(first, tokenizer)
    fields = submission(runs, about, script, model)
    files = {
        "README.md": readme(runs, fields, about.unlimited).encode(),
        "submission.json": (json.dumps(fields, indent=2) + "\n").encode(),
        "train_gpt.py": script,
        "requirements.txt": requirements(first).encode(),
        **{run.name: run.text.encode() for run in runs},
    }
    if fields["golf"]["tokenizer"]["shipped"]:
        files[fields["golf"]["tokenizer"]["file"]] = model
    return files


def submission(
    runs: Sequence[Run], about: About, script: bytes, tokenizer: bytes
) -> dict[str, Any]:
    """submission.json: the reference fields, and under `golf` what an auditor needs."""
    losses = sample([run.score.val_loss for run in runs])
    bpbs = sample([run.score.val_bpb for run in runs])
    sds = {"val_loss_std": losses.sd, "val_bpb_std": bpbs.sd}
    return {
        "author": about.author,
        "github_id": about.github_id,
        "name": about.name,
        "blurb": about.blurb,
        "date": about.date,
        "track": about.track,
        "val_loss": round(losses.mean, 8),
        "val_bpb": round(bpbs.mean, 8),
        **{name: round(sd, 8) for name, sd in sds.items() if sd is not None},
        "bytes_total": max(len(run.model) for run in runs) + len(script),
        "bytes_code": len(script),
        "seeds": [run.seed for run in runs],
        "seed_results": {str(run.seed): _result(run, len(script)) for run in runs},
        "hardware": about.hardware or f"{runs[0].log.world_size} x {runs[0].start['device']}",
        "golf": _for_auditors(runs, script, tokenizer),
    }


def requirements(run: Run) -> str:
    """requirements.txt: what the script imports beside the standard library."""
    names = _imported(readable(run.recipe, "torch")) - set(sys.stdlib_module_names)
    return "".join(f"{REQUIREMENTS.get(name, name)}\n" for name in sorted(names))


def _imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def _result(run: Run, code_bytes: int) -> dict[str, Any]:
    """One seed: its score and times as its log says them, and what binds them to an artifact."""
    log = run.log
    assert log.train_time_ms is not None and run.score.eval_time_ms is not None
    return {
        "val_loss": run.score.val_loss,
        "val_bpb": run.score.val_bpb,
        "tokens": log.tokens,
        "bytes": log.bytes,
        "steps": log.last_step,
        "train_time_s": round(log.train_time_ms / 1000.0, 3),
        "eval_time_s": round(run.score.eval_time_ms / 1000.0, 3),
        "model_bytes": len(run.model),
        "artifact_bytes": len(run.model) + code_bytes,
        "identity": run.identity,
        "model_sha256": run.model_sha256,
        "log_sha256": hashlib.sha256(run.text.encode()).hexdigest(),
    }


def _for_auditors(runs: Sequence[Run], script: bytes, tokenizer: bytes) -> dict[str, Any]:
    first = runs[0]
    recipe = elsewhere(first.recipe)
    digest = hashlib.sha256(tokenizer).hexdigest()
    file = _plain_name(Path(recipe.data.tokenizer).name)
    return {
        "format": 1,
        "version": _version(),
        "trained_with": first.backend,
        "code_sha256": hashlib.sha256(script).hexdigest(),
        "tokenizer": {
            "file": TASK_TOKENIZERS.get(digest, file),
            "sha256": digest,
            "shipped": digest not in TASK_TOKENIZERS,
        },
        "validation": _validation(first, digest),
        "recipe": to_plain(recipe),
    }


def _validation(run: Run, tokenizer: str) -> dict[str, Any]:
    """What was scored; where its shards still have their manifest, also by their hashes.

    ValueError where the shards were made with another tokenizer than is shipped.
    """
    told: dict[str, Any] = {"targets": run.log.tokens, "bytes": run.log.bytes}
    folder = Path(run.recipe.data.path)
    try:
        manifest: Mapping[str, Any] = (read_manifest(folder) if folder.is_dir() else None) or {}
    except ValueError:
        return told
    splits, files, made = (manifest.get(key) for key in ("splits", "files", "tokenizer"))
    told["tokenizer_sha256"] = made.get("sha256") if isinstance(made, dict) else None
    if told["tokenizer_sha256"] not in (None, tokenizer):
        raise ValueError(
            f"the tokenizer has SHA-256 {tokenizer[:16]}, the shards in {folder} were made with "
            f"{told['tokenizer_sha256']!s:.16}; name that one with --tokenizer"
        )
    if isinstance(splits, dict) and isinstance(splits.get("val"), dict):
        told["documents_sha256"] = splits["val"].get("documents_sha256")
    if isinstance(files, dict):
        told["files"] = {name: sha for name, sha in files.items() if name.startswith("fineweb_val")}
    return told


def _tokenizer(run: Run, given: Path | None) -> bytes:
    trained = Path(run.recipe.data.tokenizer)
    path = given or trained
    if not path.is_file():
        raise ValueError(f"{path}: the runs' tokenizer is not there; name it with --tokenizer")
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise ValueError(f"{path}: more than {MAX_TOKENIZER_BYTES:,} bytes, no tokenizer")
    data = path.read_bytes()
    known = trained.is_file() and trained.stat().st_size <= MAX_TOKENIZER_BYTES
    if known and trained.read_bytes() != data:
        raise ValueError(f"{path} is not {trained}, which the runs were trained with")
    pieces, room = tokenizer_of(path.name, data).vocab_size, run.recipe.arch.vocab_size
    if pieces > room:
        raise ValueError(f"{path} has {pieces:,} pieces, the runs' models have room for {room:,}")
    return data


def _version() -> str:
    try:
        return version("golf")
    except PackageNotFoundError:  # run from a checkout that nobody installed
        return "unknown"


def _plain_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "tokenizer.model"
