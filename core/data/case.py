"""The lossless case transform of ASCII letters (pull request 1626): lower case and four controls.

Every maximal run of ASCII letters is written in lower case: as it is; with CAPITAL before it when
only its first letter was upper case; with UPPER before it when two or more letters all were; else
with CAPITAL before a first and LATER before every further upper-case letter. A control that the
text itself holds gets ESCAPE before it. Both directions work on a stream, whatever its chunks.
"""

from __future__ import annotations

import re
import string

import numpy as np
from numpy.typing import NDArray

TRANSFORM = "lossless_caps_caseops_v1"  # its name in manifests and file names of the task
CAPITAL, UPPER, LATER, ESCAPE = CONTROLS = ("\ue001", "\ue002", "\ue003", "\ue004")
CONTROL_BYTES = 3  # of each, in UTF-8

_LETTERS = string.ascii_letters
# A run with a capital at its front is taken whole, of another one each capital by itself.
_CHANGED = re.compile(r"(?<![A-Za-z])[A-Z][A-Za-z]*|[A-Z]|[\ue001-\ue004]")
_CAPITALS = re.compile("[A-Z]")
_MARKED = re.compile("\ue004(.?)|\ue002([a-z]*)|[\ue001\ue003]([a-z]?)", re.DOTALL)
_INSERTED = re.compile(rb"\xee\x80\x84(?:\xee\x80[\x81-\x84])?|\xee\x80[\x81-\x83]")


def encode_case(text: str) -> str:
    """The text with controls and without ASCII capitals."""
    return _CHANGED.sub(_lowered, text)


def decode_case(text: str) -> str:
    """The inverse; of any other text, a control without its letter is silent."""
    return _MARKED.sub(_restored, text)


def original_ends(encoded: str, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where byte offsets in encode_case(text) (N,) lie in the bytes of the text itself (N,)."""
    inserted = [match.start() for match in _INSERTED.finditer(encoded.encode("utf-8"))]
    return ends - CONTROL_BYTES * np.searchsorted(np.array(inserted, np.int64), ends)


class CaseEncoder:
    """encode_case of a text that comes in chunks; holds the capitals that begin an open run."""

    def __init__(self) -> None:
        self._held = ""
        self._in_run = False  # the last character was a letter of a run that is decided

    def feed(self, chunk: str) -> str:
        text, rest = self._held + chunk, ""
        if self._in_run:
            rest = text.lstrip(_LETTERS)
            text = text[: len(text) - len(rest)]
            done = _CAPITALS.sub(_later, text)
            if not rest:
                return done
            text = rest
        else:
            done = ""
        body = text.rstrip(_LETTERS)
        run = text[len(body) :]
        undecided = run.isupper()
        self._held = run if undecided else ""
        self._in_run = bool(run) and not undecided
        return done + encode_case(body if undecided else text)

    def finish(self) -> str:
        held, self._held, self._in_run = self._held, "", False
        return encode_case(held)


class CaseDecoder:
    """decode_case of a text that comes in chunks; holds one control at most."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, chunk: str) -> str:
        text = self._held + chunk
        last: re.Match[str] | None = None

        def restored(match: re.Match[str]) -> str:
            nonlocal last
            last = match
            return _restored(match)

        done = _MARKED.sub(restored, text)
        self._held = ""
        if last is not None and last.end() == len(text) and _is_open(last[0]):
            self._held = last[0][0]
        return done

    def finish(self) -> str:
        self._held = ""
        return ""


def _lowered(match: re.Match[str]) -> str:
    run = match[0]
    if run in CONTROLS:
        return ESCAPE + run
    if len(run) > 1 and run.isupper():
        return UPPER + run.lower()
    before = match.string[match.start() - 1 : match.start()]
    if before and before in _LETTERS:
        return _later(match)
    return CAPITAL + run[0].lower() + _CAPITALS.sub(_later, run[1:])


def _later(match: re.Match[str]) -> str:
    return LATER + match[0].lower()


def _restored(match: re.Match[str]) -> str:
    literal, upper, capital = match.groups(default="")
    return literal + (upper + capital).upper()


def _is_open(unit: str) -> bool:
    """More text may change what a control at the end of a text does."""
    return len(unit) == 1 or unit[0] == UPPER
