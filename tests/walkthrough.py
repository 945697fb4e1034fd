"""A newcomer's path: the README's commands, and as a transcript; python -m tests.walkthrough.

Every command is run as it stands there, on real text, and shown with what it printed, in
docs/walkthrough.md.
"""

from __future__ import annotations

import os
import re
import shlex
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
LEFT = re.compile(r"\d+ (s|min) left ")  # how far it is: now there, now not
STEPS = (  # a title, and what a shell is told under it
    (
        "A tokenizer",
        "golf tokenizer train documents.jsonl.gz --vocab-size 512 --out data/mine.model",
    ),
    (
        "Shards, their bytes and hashes",
        "golf data tokenize documents.jsonl.gz --tokenizer data/mine.model --out data/mine "
        "--val-docs 60",
    ),
    (
        "What a run will cost",
        "golf plan smoke arch.vocab_size=512 arch.model_dim=96 schedule.steps=60",
    ),
    (
        "Three seeds of a recipe, and three of a narrower one",
        """for seed in 1 2 3; do
    for dim in 64 96; do
        golf train smoke arch.vocab_size=512 arch.model_dim=$dim schedule.steps=60 \\
            data.path=data/mine data.tokenizer=data/mine.model seed=$seed \\
            --backend torch --run-id dim$dim-seed$seed
    done
done""",
    ),
    (
        "Packed again from the saved weights: the same identity",
        "golf pack runs/dim96-seed1",
    ),
    (
        "The same file scored by the other engine",
        "golf score runs/dim96-seed1/model.bin --data data/mine --tokenizer data/mine.model "
        "--backend mlx",
    ),
    (
        "Whether the wider model is better than the narrower one",
        "golf compare 'runs/dim96-*' 'runs/dim64-*'",
    ),
    (
        "One file that trains this recipe in an empty folder",
        "golf bundle runs/dim96-seed1/recipe.json --out train_gpt.py",
    ),
    (
        "The records folder",
        """golf submit runs/dim96-seed1 runs/dim96-seed2 runs/dim96-seed3 \\
    --author Ada --github-id ada --out records/first""",
    ),
    ("What a reviewer would find", "golf check records/first"),
)
HEAD = """# From a clone to a checked submission folder

The ten steps of the README's path on 959 documents of United States government web text (CC0),
offline, on two CPU cores. `python -m tests.walkthrough` wrote this page. Before them: `git clone`,
`make install`, `source .venv/bin/activate`, `golf doctor`.
"""


def main() -> int:
    if not (SHARED / "data" / TEXT).exists():
        print(f"no real data: {SHARED / 'data' / TEXT} is not there", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(SHARED / "data" / TEXT, Path(name) / "documents.jsonl.gz")
        page = transcript(Path(name))
    DOCS.write_text(page, encoding="utf-8")
    return 0


def transcript(folder: Path) -> str:
    """The page of a walk in a folder that has nothing but the text."""
    return "\n".join([HEAD, *(told(folder, n, *step) for n, step in enumerate(STEPS, 1))])


def commands() -> str:
    """The path as the README has it. Without comments: not every shell takes them when typed."""
    return "".join(f"{wrapped(command, '')}\n" for _, command in STEPS)


def in_shell(
    lines: str, folder: Path, golf: str, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Lines as bash takes them; `golf` is what that name does with its arguments."""
    return subprocess.run(
        ["bash", "-ec", f'golf() {{ {golf} "$@"; }}\n{lines}'],
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def told(folder: Path, number: int, title: str, command: str) -> str:
    """Run one step and show it; an exit code that is not 0 ends the walk."""
    print(f"{number}. {title}", file=sys.stderr)
    environ = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "COLUMNS": "100"}
    done = in_shell(command, folder, f"{shlex.quote(sys.executable)} -m tools", environ)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}")
    return f"## {number}. {title}\n\n```\n{wrapped(command)}\n{shown(done.stdout, folder)}\n```\n"


def wrapped(command: str, prompt: str = "$ ") -> str:
    """A long line over several, as a shell takes it; of several each as it stands."""
    if "\n" in command:
        return prompt + command
    lines = [""]
    for word in command.split():
        if lines[-1] and len(lines[-1]) + len(word) > 97:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return prompt + " \\\n".join(lines)


def shown(output: str, folder: Path) -> str:
    """What it printed, without this machine's folders and without the middle of much."""
    text = output.replace(str(folder), ".").replace(str(ROOT), "golf")
    text = re.sub(r"(?<![\w.])/(tmp|home|root|work)/\S*", "...", text)
    lines = [line.rstrip()[:160] for line in text.strip().splitlines() if not LEFT.match(line)]
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        left_out = len(lines) - 2 * half
        lines = [*lines[:half], f"[{left_out} lines]", *lines[-half:]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
