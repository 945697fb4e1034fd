"""The Triton kernels in a process of their own: by the interpreter on a CPU, and on CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.parity.cases import recipe_of
from tests.parity.engines import Run

ROOT = Path(__file__).resolve().parents[1]
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels are CUDA's: none")


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("interpreted", ["1", pytest.param("0", marks=no_cuda)])
@pytest.mark.parametrize("speed", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_are_their_twins(speed: str, interpreted: str) -> None:
    """slow: in whole models."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", speed]
    command.append("tests/kernels.py")
    settings = {**os.environ, "TRITON_INTERPRET": interpreted}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout


def test_the_engine_needs_no_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import backend_torch.loop; print('loaded')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "loaded\n", done.stderr


def test_kernels_on_want_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="CUDA runs them, and there is none"):
        Run("torch", replace(recipe_of("baseline"), kernels="on"))
    monkeypatch.setattr("backend_torch.kernels.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Triton is not installed"):
        Run("torch", replace(recipe_of("baseline"), kernels="on"))
    with pytest.raises(ValueError, match="torch engine alone"):
        Run("mlx", replace(recipe_of("baseline"), kernels="on"))
    for kernels in ("off", "auto"):  # none is measured, so auto asks for none
        Run("torch", replace(recipe_of("baseline"), kernels=kernels))
