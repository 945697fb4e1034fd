"""What this machine has and lacks for golf: each problem with the command that mends it."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tools import blas_shim
from tools.backends import BACKENDS, installed
from tools.bootstrap import unsupported
from tools.environment import hub_source, variables
from tools.published.variants import Source
from tools.say import print_json

ROOT = Path(__file__).resolve().parents[1]
Status = Literal["ok", "note", "problem"]  # note: works, and could be better

# Each engine is asked in a process of its own: one that cannot be loaded is a finding, not a crash.
PROBES = {
    "torch": """
import json, torch
from backend_torch.attend import attention_choice
from backend_torch.distributed import Solo
device, found = Solo().device, {"version": torch.__version__, "cuda": torch.version.cuda}
found["attention"] = attention_choice(device)
found["device"] = device.type
if device.type == "cuda":
    found["device"] = torch.cuda.get_device_name(device)
    found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
print(json.dumps(found))
""",
    "mlx": """
import json, mlx.core as mx
from backend_mlx.attend import attention_choice
from backend_mlx.distributed import Solo
device, found = Solo().device, {"version": mx.__version__, "metal": mx.metal.is_available()}
found["attention"] = attention_choice(device)
found["device"] = device.type.name
print(json.dumps(found))
""",
}
PROBE_S = 180
DATA_BYTES = 20_000_000_000  # 80 shards of 200 MB, a tokenizer, and runs
HUB = "https://huggingface.co"
HUB_S = 5.0  # that one request may take
HUB_FLAGS = ("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    status: Status
    found: str
    mend: str = ""  # the command, or what to do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--online", action="store_true", help=f"ask the Hub too: one request, {HUB_S:.0f} s at most"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    checks = examine(variables(), args.online)
    if args.json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            print(f"{check.status:<8}{check.name:<16}{check.found}")
            if check.mend:
                print(f"{'':<24}-> {check.mend}")
    engines = [check for check in checks if check.name in BACKENDS]
    return 1 if any(check.status == "problem" for check in engines) else 0


def examine(environ: Mapping[str, str], online: bool = False) -> list[Check]:
    """Everything, in the order of need."""
    looks: tuple[Callable[[], Check], ...] = (python, codecs, compiler, disk, clock)
    return [
        *(engine(name) for name in BACKENDS),
        *(look() for look in looks),
        blas(environ),
        reached(environ) if online else hub(environ),
    ]


def engine(name: str) -> Check:
    """Whether an engine is there and loads, on which device, with which attention kernel."""
    mend = f"pip install -e '.[{name}]'"
    if not installed(name):
        return Check(name=name, status="problem", found="not installed", mend=mend)
    facts = probe(name)
    if "error" in facts:
        again = f"pip install --force-reinstall {name}"
        return Check(name=name, status="problem", found=facts["error"], mend=again)
    told = ", ".join(f"{fact} {value}" for fact, value in facts.items())
    if name == "torch" and facts["cuda"] and facts["device"] == "cpu":
        mend = "nvidia-smi (a CUDA build without a device: check the driver)"
        return Check(name=name, status="note", found=told, mend=mend)
    return Check(name=name, status="ok", found=told)


def probe(name: str) -> dict[str, Any]:
    """The facts that PROBES prints, or an error."""
    command = [sys.executable, "-c", PROBES[name]]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not load in {PROBE_S} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"error": f"does not load: {last}"}
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def python() -> Check:
    problem = unsupported(sys.version_info[:2], platform.system(), platform.machine())
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if problem:
        return Check(name="python", status="problem", found=found, mend=problem)
    return Check(name="python", status="ok", found=found)


def codecs() -> Check:
    """zlib and lzma come with Python, though not with every build; the others are optional."""
    lacking = [name for name in ("zlib", "_lzma") if find_spec(name) is None]
    if lacking:
        mend = "apt install zlib1g-dev liblzma-dev, then build Python again (or take another)"
        found = f"this Python was built without {', '.join(lacking)}"
        return Check(name="compressors", status="problem", found=found, mend=mend)
    absent = [name for name in ("brotli", "zstandard") if find_spec(name) is None]
    if absent:
        found = f"zlib, lzma; without {', '.join(absent)}"
        mend = f"pip install {' '.join(absent)}"
        return Check(name="compressors", status="note", found=found, mend=mend)
    return Check(name="compressors", status="ok", found="zlib, lzma, brotli, zstandard")


def compiler() -> Check:
    """Compiled MLX steps on Linux and torch.compile on a CPU need C++; the BLAS shim needs C."""
    found = {
        "C": next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None),
        "C++": next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None),
    }
    told = ", ".join(f"{language}: {path or 'none'}" for language, path in found.items())
    if all(found.values()):
        return Check(name="compiler", status="ok", found=told)
    mend = "xcode-select --install" if platform.system() == "Darwin" else "apt install g++"
    return Check(name="compiler", status="note", found=told, mend=mend)


def blas(environ: Mapping[str, str]) -> Check:
    """MLX's matrix products on a Linux CPU; elsewhere it has its own."""
    if platform.system() != "Linux" or not installed("mlx"):
        return Check(name="blas", status="ok", found="no shim needed here")
    shim = blas_shim.shim()
    if shim is None:
        found, mend = "MLX's products run on its slow reference BLAS", "apt install gcc"
        return Check(name="blas", status="note", found=found, mend=mend)
    if shim.name in environ.get("LD_PRELOAD", ""):
        return Check(name="blas", status="ok", found=f"{shim.name} is preloaded")
    mend = "LD_PRELOAD=$(python -m tools.blas_shim) python train_mlx.py ..."
    found = f"{shim.name} is built, not preloaded (make does it)"
    return Check(name="blas", status="note", found=found, mend=mend)


def disk() -> Check:
    """Room in the folder where data/ and runs/ would be."""
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:,.0f} GB free in the working folder"
    if free >= DATA_BYTES:
        return Check(name="disk", status="ok", found=found)
    mend = f"free {(DATA_BYTES - free) / 1e9:,.0f} GB for the task's 80 shards, or take fewer"
    return Check(name="disk", status="note", found=found, mend=mend)


def clock() -> Check:
    """Budgets are read from perf_counter: it must not go back, and should tell milliseconds."""
    facts = time.get_clock_info("perf_counter")
    ticks = [time.perf_counter() for _ in range(1000)]
    steady = facts.monotonic and ticks == sorted(ticks)
    found = f"resolution {facts.resolution:g} s, {'monotonic' if steady else 'goes back'}"
    if steady and facts.resolution <= 1e-3:
        return Check(name="clock", status="ok", found=found)
    mend = "set schedule.budget_s=0 and train by schedule.steps"
    return Check(name="clock", status="problem", found=found, mend=mend)


def hub(environ: Mapping[str, str]) -> Check:
    """What the environment says about the Hub. It is not contacted, and no token is shown."""
    found = f"not contacted (--online asks it); {flags(environ)}"
    if environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        mend = "unset HF_HUB_OFFLINE to download data; what is there works without"
        return Check(name="hub", status="note", found=found, mend=mend)
    return Check(name="hub", status="ok", found=found)


def flags(environ: Mapping[str, str]) -> str:
    """The variables that huggingface_hub reads; a token is not shown."""
    found = [
        f"{name}={'(set)' if name == 'HF_TOKEN' else environ[name]}"
        for name in HUB_FLAGS
        if environ.get(name)
    ]
    return ", ".join(found) or "no HF_ variables"


def reached(environ: Mapping[str, str]) -> Check:
    """Whether the Hub answers for the task's data: one request, without the token."""
    source = Source(**hub_source(environ))
    where = f"{environ.get('HF_ENDPOINT') or HUB}/api/datasets/{source.repo_id}"
    started = time.perf_counter()
    try:
        request = urllib.request.Request(where, headers={"User-Agent": "golf-doctor"})
        with urllib.request.urlopen(request, timeout=HUB_S) as answer:
            told, status = f"HTTP {answer.status}", answer.status
    except urllib.error.HTTPError as error:
        told, status = f"HTTP {error.code}", error.code
    except (OSError, ValueError) as error:
        told, status = str(getattr(error, "reason", error)), 0
    seconds = time.perf_counter() - started
    found = f"{where}: {told} in {seconds:.1f} s; {flags(environ)}"
    if status == 200:
        return Check(name="hub", status="ok", found=found)
    mend = "try another network, or HF_ENDPOINT=https://... of a mirror"
    if status in (401, 403, 404):
        mend = "look at MATCHED_FINEWEB_REPO_ID, and whether the repository asks for a token"
    return Check(name="hub", status="note", found=found, mend=mend)
