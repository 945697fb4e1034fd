"""What the small Hub publishes, as the task does, and what of it must arrive in a folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from tests.tools.fake_hub import Hub
from tools.published.variants import Source

REPO = Source.repo_id
FOLDER = "datasets/fineweb10B_sp384"
MODEL = "tokenizers/fineweb_384_bpe.model"
VAL, SIDECAR = f"{FOLDER}/fineweb_val_000000.bin", f"{FOLDER}/fineweb_val_bytes_000000.bin"
OPTIONS = ("data", "get", "--variant", "sp384")


def train(number: int) -> str:
    return f"{FOLDER}/fineweb_train_{number:06d}.bin"


def arrived(out: Path = Path("data")) -> dict[str, bytes]:
    """All files below `out` but the record, as the repository names them."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "source.json"]
    return {f"datasets/{path.relative_to(out)}": path.read_bytes() for path in files}


def expected(hub: Hub, shards: int = 99) -> dict[str, bytes]:
    """What `--train-shards shards` is."""
    gone = [f"datasets/{train(number)}" for number in range(shards, 99)]
    return {n: c for n, c in hub.files.items() if n not in gone and "docs" not in n}


def wait_for(holds: Any, seconds: float = 30.0) -> None:
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s
        threading.Event().wait(0.01)
