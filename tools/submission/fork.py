"""A branch of a fork that adds one folder: made of git's objects; checkout and index stay as is."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.checks.git import git

MAIN = ("refs/heads/main", "refs/remotes/origin/main")


@dataclass(frozen=True, kw_only=True)
class Branch:
    name: str
    commit: str
    base: str  # the commit that it adds the folder to


def add_branch(
    fork: Path, place: str, files: Mapping[str, bytes], message: str, date: str
) -> Branch:
    """Write the files to `place` on a new branch off the fork's main.

    The same files on the same main give the same commit. ValueError where main has the place or
    another branch has the name.
    """
    base = _main(fork)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", place.rsplit("/", 1)[-1])
    if git(fork, "ls-tree", base, "--", place).strip():
        raise ValueError(f"{fork}: its main has {place} already; choose another --name or --date")
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(fork, "read-tree", base, environ=index)
        for path, content in files.items():
            blob = git(fork, "hash-object", "-w", "--stdin", stdin=content).strip()
            entry = f"100644,{blob},{place}/{path}"
            git(fork, "update-index", "--add", "--cacheinfo", entry, environ=index)
        tree = git(fork, "write-tree", environ=index).strip()
    when = f"{date}T00:00:00Z"
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    commit = git(fork, "commit-tree", tree, "-p", base, "-m", message, environ=dates).strip()
    _point(fork, name, commit)
    return Branch(name=name, commit=commit, base=base)


def _main(fork: Path) -> str:
    if not fork.is_dir():
        raise ValueError(f"{fork}: no such folder; expected a clone of your fork")
    git(fork, "rev-parse", "--git-dir")
    for name in MAIN:
        try:
            return git(fork, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
        except ValueError:
            continue
    raise ValueError(f"{fork}: it has no branch main")


def _point(fork: Path, name: str, commit: str) -> None:
    """Make the branch; one that is there already may only be this commit."""
    ref = f"refs/heads/{name}"
    try:
        held = git(fork, "rev-parse", "--verify", "--quiet", ref).strip()
    except ValueError:
        git(fork, "update-ref", ref, commit, "0" * len(commit))
        return
    if held != commit:
        raise ValueError(f"{fork}: it has another branch {name}; delete it or choose a --name")
