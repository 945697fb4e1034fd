"""What a number was measured on: device, processor, threads, versions, commit, date."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tools.backends import installed, load
from tools.environment import variables

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
CPU_INFO = Path("/proc/cpuinfo")


def hardware(backends: list[str]) -> dict[str, Any]:
    """As fields of the JSON; the engines named are loaded."""
    found = [name for name in backends if installed(name)]
    environ = variables()
    preloaded = Path(environ.get("LD_PRELOAD", "").strip()).name
    return {
        "devices": {name: load(name, "distributed").Solo().device_name() for name in found},
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": {name: load(name, "yardsticks").threads() for name in found},
        "variables": {name: environ[name] for name in THREADS if name in environ},
        "blas_shim": preloaded if "golf_blas_shim" in preloaded else None,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "versions": {name: load(name, "yardsticks").versions() for name in found},
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["golf", *sys.argv[1:]]),
    }


def told(found: dict[str, Any]) -> str:
    """The same in a few lines, to stand above a table."""
    devices = ", ".join(f"{name} on {device}" for name, device in found["devices"].items())
    counts = [f"{name} {count}" for name, count in found["threads"].items() if count]
    counts += [f"{name}={value}" for name, value in found["variables"].items()]
    names = [f"{name} {one[name]}" for name, one in found["versions"].items()]
    shim = f"; BLAS shim {found['blas_shim']}" if found["blas_shim"] else ""
    return (
        f"{found['date']}, commit {found['commit'] or 'unknown'}: `{found['command']}`\n"
        f"{devices or 'no engine'}; {found['processor']}, {found['cores']} cores, "
        f"load average {found['load_average']}\n"
        f"threads: {', '.join(counts) or 'not told'}{shim}; {', '.join(names)}, "
        f"Python {found['python']}"
    )


def processor() -> str:
    """The maker's name, where the system tells it."""
    if CPU_INFO.is_file():
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """What is checked out, with a + where files differ from it; None outside of a checkout."""
    head = _git("rev-parse", "--short", "HEAD")
    return None if head is None else head + ("+" if _git("status", "--porcelain", "-uno") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
