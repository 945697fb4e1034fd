"""README.md says what the code says: tree, bounds, commands."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.parity.report import HEAD, left
from tests.parity.rungs import RUNGS
from tests.readme import README, ROOT, with_tree
from tools.main import VERBS

TEXT = README.read_text(encoding="utf-8")


def test_the_tree_is_the_checkouts() -> None:
    assert with_tree(TEXT) == TEXT, "run python -m tests.readme"


def test_the_ladder_has_every_rung_with_its_bound() -> None:
    assert HEAD in TEXT
    for rung in RUNGS:
        assert left(rung) in TEXT, f"{left(rung)}: run make device-check and paste the table"


def test_every_verb_is_named() -> None:
    for verb in VERBS:
        assert f"golf {verb}" in TEXT, verb


def test_the_makefile_can_be_read() -> None:
    """Every target that README and CONTRIBUTING name is one, and make parses the file."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    for target in ("demo", "test", "test-slow", "check", "device-check", "bench"):
        command = ["make", "--dry-run", "PYTHON=true", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_machine_words_stay_out() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("core/**/*.py"), *ROOT.glob("tools/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(tmp|work|root|home)/", text), path.name
