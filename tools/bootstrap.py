"""Makes .venv with everything that `make demo` and `make test` need. Run by the system's Python.

Standard library only. Where that Python already has a CUDA build of torch, .venv uses it as it is.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "installed.txt"
SUPPORTED = ((3, 11), (3, 13))
OLDEST_TORCH = (2, 9)
HAS_CUDA_TORCH = (
    "import sys, torch; version = tuple(map(int, torch.__version__.split('.')[:2])); "
    f"sys.exit(0 if torch.version.cuda and version >= {OLDEST_TORCH} else 1)"
)


def main() -> int:
    problem = unsupported(sys.version_info[:2], platform.system(), platform.machine())
    if problem:
        print(problem, file=sys.stderr)
        return 1
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return 0
    own_torch = has_cuda_torch()
    print(f"Making {VENV.name} with Python {platform.python_version()}.", flush=True)
    venv.EnvBuilder(with_pip=True, system_site_packages=own_torch, clear=True).create(VENV)
    if own_torch and not has_cuda_torch(VENV / "bin" / "python"):
        see_packages_of(Path(sysconfig.get_paths()["purelib"]))
    install(own_torch)
    STAMP.write_text(wanted)
    return 0


def unsupported(version: tuple[int, int], system: str, machine: str) -> str:
    """A sentence about why this machine cannot run the project, or nothing."""
    low, high = SUPPORTED
    if not low <= version <= high:
        return (
            f"Python {version[0]}.{version[1]} found, 3.{low[1]} to 3.{high[1]} needed: "
            f"name another, as in `make PYTHON=python3.{low[1]} demo`."
        )
    if system == "Darwin" and machine == "x86_64":
        return "An Intel Mac: neither engine has a build for it. Use Apple silicon or Linux."
    return ""


def fingerprint() -> str:
    """What .venv was made from; another makes it anew."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    return "\n".join([sys.version, *(file.read_text() for file in files)])


def has_cuda_torch(python: str | Path = sys.executable) -> bool:
    """Whether this Python brings a torch for CUDA that is new enough."""
    probe = subprocess.run([python, "-c", HAS_CUDA_TORCH], capture_output=True, check=False)
    return probe.returncode == 0


def see_packages_of(folder: Path) -> None:
    """Where this Python is itself of a virtual environment: .venv looks there too."""
    own = next((VENV / "lib").glob("python3.*/site-packages"))
    (own / "parent.pth").write_text(f"{folder}\n")


def install(own_torch: bool) -> None:
    """The project, editable, at the tested versions; a torch that is there stays as it is."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    if own_torch:
        pins = [pin for pin in pins if not pin.startswith(("torch==", "numpy=="))]
    extras = "mlx,tools,dev" if own_torch else "torch,mlx,tools,dev"
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins) + "\n")
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        what = ["--constraint", str(constraints), "--editable", f".[{extras}]"]
        subprocess.run([*pip, *what], cwd=ROOT, check=True, env=quiet())


def quiet() -> dict[str, str]:
    return {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"installation failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        if "ensurepip" in map(str, error.cmd):
            print("Debian and Ubuntu: apt install python3-venv, then again.", file=sys.stderr)
        sys.exit(1)
