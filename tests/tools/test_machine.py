"""What the command finds on a machine: its engines, its Python, its torch, its compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import blas_shim, bootstrap
from tools.backends import choose, other
from tools.say import UsageError


def test_the_engine_is_chosen_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, system, wanted, chosen in (
        ({"torch", "mlx"}, "Linux", "auto", "torch"),
        ({"torch", "mlx"}, "Darwin", "auto", "mlx"),
        ({"mlx"}, "Linux", "auto", "mlx"),
        ({"torch"}, "Darwin", "auto", "torch"),
        ({"torch", "mlx"}, "Linux", "mlx", "mlx"),
    ):
        monkeypatch.setattr("tools.backends.installed", lambda name, i=installed: name in i)
        monkeypatch.setattr("platform.system", lambda s=system: s)
        assert choose(wanted) == chosen
    monkeypatch.setattr("tools.backends.installed", lambda name: name == "torch")
    assert other("torch") is None
    with pytest.raises(UsageError, match=r"--backend mlx: not installed; pip install"):
        choose("mlx")
    monkeypatch.setattr("tools.backends.installed", lambda name: False)
    with pytest.raises(UsageError, match="no engine is installed"):
        choose("auto")


@pytest.mark.parametrize(
    ("version", "system", "machine", "sentence"),
    [
        ((3, 10), "Linux", "x86_64", "Python 3.10 found, 3.11 to 3.13 needed"),
        ((3, 14), "Linux", "x86_64", "Python 3.14 found"),
        ((3, 12), "Darwin", "x86_64", "An Intel Mac"),
        ((3, 11), "Linux", "x86_64", ""),
        ((3, 13), "Darwin", "arm64", ""),
    ],
)
def test_machines_that_cannot_run_it_get_a_sentence(
    version: tuple[int, int], system: str, machine: str, sentence: str
) -> None:
    found = bootstrap.unsupported(version, system, machine)
    assert found.startswith(sentence) and bool(found) == bool(sentence)


@pytest.mark.parametrize("own_torch", [True, False])
def test_a_cuda_torch_that_is_there_stays(monkeypatch: pytest.MonkeyPatch, own_torch: bool) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> None:
        at = command.index("--constraint") + 1
        seen.update(command=command, constraints=Path(command[at]).read_text())

    monkeypatch.setattr(subprocess, "run", run)
    bootstrap.install(own_torch)
    assert ("torch==" in seen["constraints"]) is not own_torch
    assert ("torch," in seen["command"][-1]) is not own_torch
    assert "mlx==" in seen["constraints"] and "mlx" in seen["command"][-1]


def test_a_python_without_cuda_torch_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, found in (
        (("'13.0'", "2.11.0+cu130"), True),
        (("None", "2.13.0+cpu"), False),
        (("'12.1'", "2.4.1"), False),
    ):
        fake = "import types, sys; sys.modules['torch'] = torch = types.ModuleType('torch'); "
        fake += f"torch.version = types.SimpleNamespace(cuda={version[0]}); "
        fake += f"torch.__version__ = '{version[1]}'; "
        probe = fake + bootstrap.HAS_CUDA_TORCH.replace("import sys, torch; ", "")
        monkeypatch.setattr(bootstrap, "HAS_CUDA_TORCH", probe)
        assert bootstrap.has_cuda_torch() is found
        monkeypatch.undo()


def test_the_shim_is_built_where_it_can_be() -> None:
    path = blas_shim.shim()
    if path is None:
        pytest.skip("no Linux, no C compiler or no OpenBLAS in numpy's wheel: MLX runs as it is")
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).cblas_sgemm"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 0
