"""What a stranger's process may touch of the file system: by Landlock, where the kernel has it.

Elsewhere a trap within Python refuses to write outside of the folder, which is no more than a
watch: what is not Python goes past it. This file is run before the stranger's program, by its path:
it imports nothing of this project.
"""

from __future__ import annotations

import ctypes
import glob
import os
import resource
import runpy
import struct
import sys
from collections.abc import Sequence

CREATE, ADD, RESTRICT = 444, 445, 446  # system calls, the same on every architecture of Linux
NO_NEW_PRIVS = 38  # prctl
PATH_BENEATH = 1
READ = 0b1101  # execute, read a file, list a folder
RIGHTS = (0, 13, 14, 15, 15, 16)  # how many kinds of access each version of Landlock knows
READABLE = (
    *("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc", "/opt", "/nix", "/proc", "/sys"),
    *("/dev",),
)
DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm", "/dev/kfd"),
    *("/dev/dri", "/dev/infiniband"),
)
GPUS = "/dev/nvidia*"
WRITES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link"}


def landlock_version() -> int:
    """0 where the kernel has no Landlock."""
    if not sys.platform.startswith("linux"):
        return 0
    found = _call(CREATE, None, 0, 1)
    return max(0, found)


def confine(writable: Sequence[str], readable: Sequence[str]) -> bool:
    """From here on this process and all it starts read `readable` and what a program needs, and
    write `writable` and devices alone; False where the kernel does not hold them to it.
    """
    version = landlock_version()
    if not version:
        return False
    rights = (1 << RIGHTS[min(version, len(RIGHTS) - 1)]) - 1
    attributes = struct.pack("Q", rights)
    ruleset = _call(CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    allowed = [(path, rights & READ) for path in (*READABLE, *readable)]
    allowed += [(path, rights) for path in (*writable, *DEVICES, *glob.glob(GPUS))]  # noqa: PTH207
    held = all(_allow(ruleset, path, access, rights) for path, access in allowed)
    libc = ctypes.CDLL(None, use_errno=True)
    held = held and libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    held = held and _call(RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return held


def _allow(ruleset: int, path: str, access: int, rights: int) -> bool:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True  # nothing is there to be allowed
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - it imports as little as it can
            access &= 0b111 | 1 << 14 | 1 << 15  # of a file: run, write, read, truncate, ioctl
        rule = struct.pack("=Qi", access, place)
        return _call(ADD, ruleset, PATH_BENEATH, rule, 0) == 0
    finally:
        os.close(place)


def _call(number: int, *words: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(number, *words))


def trap(folder: str) -> None:
    """From here on Python itself refuses to write outside of the folder and /dev."""
    inside = (os.path.realpath(folder) + os.sep, "/dev/")

    def listen(event: str, args: tuple[object, ...]) -> None:
        written = (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if (written or event in WRITES) and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not path.startswith(inside):
                raise PermissionError(f"golf: it writes outside of its folder: {path}")

    sys.addaudithook(listen)


def main() -> None:
    """file_bytes memory_bytes confine places... -- command...: limits set, then the command."""
    files, memory, wanted = map(int, sys.argv[1:4])
    end = sys.argv.index("--")
    resource.setrlimit(resource.RLIMIT_FSIZE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    places = sys.argv[4:end]
    command = sys.argv[end + 1 :]
    if wanted and not confine(places[:1], places[1:]):
        trap(places[0])
        sys.argv = command[1:]
        sys.path.insert(0, places[0])
        runpy.run_path(command[1], run_name="__main__")
        return
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
