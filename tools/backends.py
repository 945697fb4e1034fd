"""The choice of engine, made before either is loaded."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
from types import ModuleType

from tools.say import UsageError

BACKENDS = ("torch", "mlx")


def add_backend(
    parser: argparse.ArgumentParser, words: str = "auto: MLX on a Mac, else torch"
) -> None:
    parser.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help=words,
    )


def choose(wanted: str) -> str:
    """The engine to use: the wanted one, or the one that suits this machine."""
    found = [name for name in BACKENDS if installed(name)]
    if wanted != "auto":
        if wanted not in found:
            raise UsageError(f"--backend {wanted}: not installed; pip install -e '.[{wanted}]'")
        return wanted
    if not found:
        raise UsageError("no engine is installed; pip install -e '.[torch]' or '.[mlx]'")
    on_mac = platform.system() == "Darwin"
    return "mlx" if "mlx" in found and (on_mac or "torch" not in found) else found[0]


def other(backend: str) -> str | None:
    """The engine beside this one, where it is installed."""
    twin = {"torch": "mlx", "mlx": "torch"}[backend]
    return twin if installed(twin) else None


def installed(backend: str) -> bool:
    return importlib.util.find_spec({"torch": "torch", "mlx": "mlx.core"}[backend]) is not None


def load(backend: str, file: str) -> ModuleType:
    """backend_<name>.<file>: the first import of a framework.

    Unless the user says otherwise its threads wait asleep: awake, they make a run on a busy
    machine several times slower, for two in a hundred on an idle one.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return importlib.import_module(f"backend_{backend}.{file}")
