"""What the branch around a records folder changes, asked of git's stored trees alone."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from core.data.findings import Finding
from core.score.rules import found
from tools.checks.folder import Entry, Folder, open_folder
from tools.environment import variables

MAX_SHOWN = 5
SECONDS = 120.0
# A stranger's repository may name programs that git would start.
QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")


def check_diff(root: Path, base: str | None) -> Finding:
    """Every path that differs between where HEAD left `base` and HEAD, and where it lies."""
    rule = "only this folder"
    if base is None:
        said = "not looked at; --diff BASE compares HEAD with where it left BASE"
        return found(rule, "UNDECIDED", ".", said)
    if base.startswith("-"):
        raise ValueError(f"--diff {base}: expected the name of a branch or commit")
    try:
        return _compared(root, base)
    except ValueError as error:
        said = f"cannot be compared with {base:.80}: {error!s:.200}; name a branch or commit"
        return found(rule, "FAIL", ".", said)


def _compared(root: Path, base: str) -> Finding:
    rule = "only this folder"
    top = Path(git(root, "rev-parse", "--show-toplevel").strip())
    inside = root.resolve().relative_to(top.resolve()).as_posix()
    fork = git(root, "merge-base", base, "HEAD").strip()
    words = ("diff-tree", "-r", "-z", "--no-renames", "--name-only", fork, "HEAD")
    changed = [path for path in git(top, *words).split("\0") if path]
    outside = [path for path in changed if not path.startswith(f"{inside}/")]
    if outside:
        shown = ", ".join(outside[:MAX_SHOWN])
        said = f"{len(outside)} paths outside of {inside} change since {fork[:12]}: {shown}"
        return found(rule, "FAIL", ".", said)
    if not changed:
        said = f"nothing of {inside} is committed since {fork[:12]}"
        return found(rule, "FAIL", ".", said)
    if odd := _not_committed(root, top, inside):
        shown = ", ".join(odd[:MAX_SHOWN])
        said = f"{len(odd)} files are not here as HEAD has them, or not in HEAD: {shown}"
        return found(rule, "FAIL", ".", f"{said}; commit the folder as it is checked")
    return found(rule, "PASS", ".", f"{len(changed)} files since {fork[:12]}, all in {inside}")


def _not_committed(root: Path, top: Path, inside: str) -> list[str]:
    """Files of the folder that differ from HEAD's, that HEAD lacks, or that only HEAD has."""
    listed = git(top, "ls-tree", "-r", "-z", "HEAD", "--", inside)
    held = {}
    for line in listed.split("\0"):
        if line:
            fields, path = line.split("\t", 1)
            held[path.removeprefix(f"{inside}/")] = fields.split()[2]
    folder = open_folder(root)
    here = {one.path: one for one in folder.files}
    differ = [path for path, one in here.items() if held.get(path) != _blob(folder, one, held)]
    return sorted({*differ, *(held.keys() - here.keys())})


def _blob(folder: Folder, entry: Entry, held: Mapping[str, str]) -> str:
    """The name that git gives to a file's content; SHA-256 where its repository has that."""
    try:
        data = folder.read(entry)
    except OSError:
        return ""
    long = any(len(name) == 64 for name in held.values())
    digest = hashlib.sha256 if long else hashlib.sha1
    return digest(b"blob %d\0" % len(data) + data).hexdigest()


def git(
    place: Path,
    *words: str,
    stdin: bytes | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """What a git command says; ValueError with its own words where it fails."""
    held = {name: value for name, value in variables().items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", *QUIET, "-C", str(place), *words],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env={**held, **(environ or {})},
        )
    except FileNotFoundError:
        raise ValueError("there is no git on this machine; install it") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"git {words[0]} in {place}: {said[-1] if said else 'failed'}")
    return done.stdout.decode("utf-8", "surrogateescape")
