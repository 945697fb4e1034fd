"""A newcomer's path as a transcript: python -m tests.walkthrough writes docs/walkthrough.md anew.

Every command is run as it stands there, on real text, and shown with what it printed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.shared_data import SHARED

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "walkthrough.md"
TEXT = "webgov_test.jsonl.gz"
SHOWN_LINES = 24  # of a command's output; the middle of a longer one is left out
HEAD = """# From a clone to a checked submission folder

Ten commands on 959 documents of United States government web text (CC0), offline, on two CPU cores;
any `.jsonl` with a `text` in each line will do. `python -m tests.walkthrough` wrote this page.
Before them: `git clone`, `make install`, `source .venv/bin/activate`.
"""
STEPS = (  # a title, and the command under it
    ("What this machine has", "golf doctor"),
    (
        "A tokenizer",
        f"golf tokenizer train {TEXT} --vocab-size 512 --out data/webgov_512.model",
    ),
    (
        "Shards, their bytes and hashes",
        f"golf data tokenize {TEXT} --tokenizer data/webgov_512.model --out data/webgov "
        "--val-docs 60",
    ),
    (
        "What a run will cost",
        "golf plan smoke arch.vocab_size=512 arch.model_dim=96 schedule.steps=60",
    ),
    *(
        (
            f"Training, seed {seed}",
            "golf train smoke arch.vocab_size=512 arch.model_dim=96 schedule.steps=60 "
            "data.path=data/webgov data.tokenizer=data/webgov_512.model "
            f"--backend torch --run-id seed{seed} seed={seed}",
        )
        for seed in (1, 2, 3)
    ),
    (
        "The same file scored by the other engine",
        "golf score runs/seed1/model.bin --data data/webgov --tokenizer data/webgov_512.model "
        "--backend mlx",
    ),
    (
        "The records folder",
        "golf submit runs/seed1 runs/seed2 runs/seed3 --author Ada --github-id ada "
        "--date 2026-11-21 --out records/first",
    ),
    ("What a reviewer would find", "golf check records/first"),
)


def main() -> int:
    if not (SHARED / "data" / TEXT).exists():
        print(f"no real data: {SHARED / 'data' / TEXT} is not there", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SHARED / "data" / TEXT, folder / TEXT)
        parts = [HEAD, *(told(folder, number, *step) for number, step in enumerate(STEPS, 1))]
    DOCS.write_text("\n".join(parts), encoding="utf-8")
    return 0


def told(folder: Path, number: int, title: str, command: str) -> str:
    """Run one command and show it; an exit code that is not 0 ends the walk."""
    print(f"{number}. {command}", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "tools", *command.split()[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}")
    return f"## {number}. {title}\n\n```\n$ {wrapped(command)}\n{shown(done.stdout, folder)}\n```\n"


def wrapped(command: str) -> str:
    """A long command over several lines, as a shell takes it."""
    lines = [""]
    for word in command.split():
        if lines[-1] and len(lines[-1]) + len(word) > 90:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def shown(output: str, folder: Path) -> str:
    """What it printed, without this machine's folders and without the middle of much."""
    text = output.replace(str(folder), ".").replace(str(ROOT), "golf")
    text = re.sub(r"(?<![\w.])/(tmp|home|root|work)/\S*", "...", text)
    lines = [line.rstrip()[:160] for line in text.strip().splitlines()]
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        left_out = len(lines) - 2 * half
        lines = [*lines[:half], f"[{left_out} lines]", *lines[-half:]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
