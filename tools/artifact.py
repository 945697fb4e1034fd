"""An artifact named on a command line: its bytes, or a sentence about what was found instead."""

from __future__ import annotations

from pathlib import Path

from core.artifact.container import Artifact, read


def artifact_bytes(path: Path) -> bytes:
    """The file's bytes."""
    if path.is_dir():
        inside = path / "model.bin"
        hint = f"; did you mean {inside}?" if inside.is_file() else ", not an artifact"
        raise ValueError(f"{path} is a folder{hint}")
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; a run leaves its artifact in runs/<run id>/model.bin"
        )
    return path.read_bytes()


def open_artifact(path: Path) -> Artifact:
    """The artifact in a file; what is wrong with it is told with its name."""
    try:
        return read(artifact_bytes(path))
    except ValueError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise ValueError(f"{where}{error}") from None
