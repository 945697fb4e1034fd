"""Whether a stranger's script starts: in a copy of its folder, isolated, and only when asked."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from glob import glob
from pathlib import Path

from core.data.findings import Finding
from core.score.rules import found
from tools.checks.folder import Folder
from tools.checks.script import SCRIPT
from tools.strangers.confined import GPUS
from tools.strangers.isolated import Limits, Outcome, network_shell, python, run_isolated
from tools.strangers.log_lines import StepLine
from tools.strangers.logs import read_text

FILE_BYTES = 2_000_000_000
MEMORY_BYTES = 16 << 30  # of all its processes
ADDRESS_BYTES = 64 << 30  # of each, where no GPU reserves more
TAIL = 200
# What no other machine would mend; a missing GPU or package is not the script's fault.
_OWN_FAULT = re.compile(r"^(Syntax|Indentation|Name|FileNotFound|Permission|Type)Error\b", re.M)


def check_start(
    folder: Folder, asked: bool, seconds: float, data: Path | None, tokenizer: Path | None
) -> Finding:
    """Start it for `seconds`; a step of training is what shows that it runs."""
    if not asked:
        said = "not started; --run starts it, isolated, with --data and --tokenizer"
        return found("starts", "UNDECIDED", SCRIPT, said)
    if folder.file(SCRIPT) is None:
        return found("starts", "FAIL", SCRIPT, "missing")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        for entry in folder.files:
            (copy / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (copy / entry.path).write_bytes(folder.read(entry))
        places = {"DATA_PATH": data, "TOKENIZER_PATH": tokenizer}
        environ = {name: str(path.resolve()) for name, path in places.items() if path}
        limits = Limits(
            seconds=seconds,
            file_bytes=FILE_BYTES,
            memory_bytes=0 if glob(GPUS) else ADDRESS_BYTES,  # noqa: PTH207
            resident_bytes=MEMORY_BYTES,
            confined=True,
            readable=tuple(environ.values()),
        )
        done = run_isolated(python(Path(SCRIPT)), copy, environ, limits)
    done = replace(done, output=done.output.replace(str(copy), "."))
    return _told(done, data is not None and tokenizer is not None)


def _told(done: Outcome, had_data: bool) -> Finding:
    steps = [x for x in read_text(done.output, "output").steps if isinstance(x, StepLine)]
    how = f"[{done.isolation}]"
    if not network_shell()[0]:
        said = f"ended with {done.code}, {len(steps)} steps; without isolation this shows nothing"
        return found("starts", "UNDECIDED", SCRIPT, f"{said} {how}")
    if steps:
        said = f"it started, and within {done.seconds:.0f} s it printed a line of step "
        said += f"{steps[-1].step} of {steps[-1].steps}: what it says, not what it computed"
        return found("starts", "PASS", SCRIPT, f"{said} {how}")
    last = done.output.strip().splitlines()[-1:] or ["no output"]
    said = f"no step; it said: {last[0][-TAIL:]}"
    if done.over_memory:
        said = f"killed after {done.seconds:.0f} s for its memory, {said}"
        return found("starts", "UNDECIDED", SCRIPT, f"{said} {how}")
    if done.timed_out:
        return found("starts", "UNDECIDED", SCRIPT, f"{done.seconds:.0f} s, {said} {how}")
    if not had_data:
        said = f"without --data and --tokenizer it ended with {done.code}, {said}"
        return found("starts", "UNDECIDED", SCRIPT, f"{said} {how}")
    if not _OWN_FAULT.search(done.output):
        said += "; perhaps something that this machine lacks"
        return found("starts", "UNDECIDED", SCRIPT, f"ended with {done.code}, {said} {how}")
    return found("starts", "FAIL", SCRIPT, f"ended with {done.code}, {said} {how}")
