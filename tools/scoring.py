"""A long scoring as its user meets it: how far it is, and what Ctrl-C leaves to go on from."""

from __future__ import annotations

import os
import signal
import time
from copy import copy
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from core.score.adapting import Learned
from core.score.bpb import Tally
from core.score.resume import Task, load_state, save_state
from core.score.rules import EVAL_S
from tools.say import note

SAVE_EVERY_S = 30.0
STOPPING = b"\nstopping behind this batch, to keep what is done; Ctrl-C again: at once\n"
PART = "chunk or batch of documents"
NOTHING_WHOLE = f"no {PART} has ended yet, and what was learned is whole behind one only"
TELL_AFTER_S = 3.0  # plain lines: the first after this, then one for every twentieth


class Keeper:
    """Saves the tally every so often, and at Ctrl-C or SIGTERM once the batch is added up.

    Of a model that learns: as it was behind the last chunk or batch of documents, when what had
    been learned was whole. That is held in memory until it is saved.
    """

    def __init__(
        self, group: Any, path: Path | None = None, task: Task | None = None, learns: bool = False
    ) -> None:
        self.group = group  # of ranks that score together: the first one writes and talks
        self.leads = group.rank == 0
        self.path = path
        self.task = task or {}
        self.learns = learns
        self.held: tuple[Tally, Learned] | None = None  # of a model that learns
        self.started = self.saved = time.perf_counter()
        self.interrupted = 0  # the signal's number
        self.handlers: dict[int, Any] = {}

    def stopped_at(self, empty: Tally, num_tokens: int) -> Tally:
        """Where an earlier scoring stopped; the tally as it is where there was none."""
        assert self.path is not None
        if not self.path.parent.is_dir():
            raise ValueError(f"{self.path.parent}: no such folder to keep what is scored in")
        if not self.path.exists():
            return empty
        tally, seconds, learned = load_state(self.path, self.task, empty, num_tokens)
        self.started -= seconds
        if learned is not None:
            self.hold(tally, learned)
        if self.leads:
            note(f"going on from {self.path}: {tally.targets:,} targets are scored")
        return tally

    def hold(self, tally: Tally, learned: Learned) -> None:
        """Here what is learned is whole."""
        if self.path is not None:
            self.held = copy(tally).from_state(*tally.to_state()), learned

    def __enter__(self) -> Keeper:
        if self.path is not None:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def __call__(self, tally: Tally) -> None:
        """After a batch. What one rank was told, all obey, at the same batch."""
        self.interrupted = int(max(self.group.max(float(self.interrupted))))
        if self.interrupted or time.perf_counter() - self.saved >= SAVE_EVERY_S:
            self.save(tally)
        if self.interrupted == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self.interrupted:
            raise KeyboardInterrupt

    def save(self, tally: Tally) -> None:
        """A place that cannot be written costs the file, not the scoring."""
        if self.path is None or not self.leads:
            return
        learned = None
        if self.learns and self.held is None:
            if self.interrupted:
                note(f"nothing is kept: {NOTHING_WHOLE}")
            return
        if self.held is not None:
            tally, learned = self.held
        try:
            save_state(self.path, self.task, tally, self.seconds(), learned)
        except OSError as error:
            note(f"nothing is kept to go on from: {error}; --resume FILE names another place")
            self.path = None
        else:
            self.saved = time.perf_counter()
            if self.interrupted:
                note(f"{tally.targets:,} scored targets kept in {self.path}: run it again to go on")

    def kept(self) -> str:
        """Where a partial score can be gone on with."""
        if self.path is None:
            return ""
        if not self.learns:
            return f"; kept in {self.path}: run it again to go on"
        if self.held is None:
            return f"; nothing is kept: {NOTHING_WHOLE}"
        return (
            f"; {self.held[0].targets:,} targets, those behind which a {PART} ended, are kept in "
            f"{self.path}: run it again to go on"
        )

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """The first signal waits for the batch, half of which cannot be kept; Ctrl-C then ends it.

        It writes past Python's buffers, which may be in the middle of a line of their own.
        """
        self.interrupted = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.leads:
            os.write(
                2, b"\nstopping behind this batch, to keep what is done; Ctrl-C again: at once\n"
            )

    def seconds(self) -> float:
        """Spent on this scoring, before and now."""
        return time.perf_counter() - self.started

    def forget(self) -> None:
        """The scoring is done."""
        if self.path is not None and self.leads:
            self.path.unlink(missing_ok=True)


class Progress:
    """How far a scoring is, on stderr: a live line on a terminal, else a line now and then."""

    def __init__(
        self, of_targets: int, label: str, shows: bool = True, opened: float = 0.0
    ) -> None:
        self.of_targets = of_targets
        self.label = label
        self.shows = shows
        self.opened = opened or time.perf_counter()  # when the task's clock began
        self.first_targets = 0
        self.begun: float | None = None
        self.told_parts = -1  # twentieths
        self.live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
        self.shows_live = shows and self.live.console.is_terminal

    def __enter__(self) -> Progress:
        if self.shows_live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shows_live:
            self.live.stop()

    def __call__(self, tally: Tally) -> None:
        """After a batch. The first one pays for compiling: the rate is counted from its end."""
        now = time.perf_counter()
        if self.begun is None:
            self.begun, self.first_targets = now, tally.targets
        elapsed_s, parts = now - self.begun, 20 * tally.targets // self.of_targets
        if self.shows_live:
            self.live.update(Text(self.status(tally, elapsed_s)), refresh=True)
        elif self.shows and elapsed_s >= TELL_AFTER_S and self.told_parts < parts < 20:
            note(self.status(tally, elapsed_s))
            self.told_parts = parts

    def status(self, tally: Tally, elapsed_s: float) -> str:
        """Time left first, and of what the task allows; the BPB so far with its label."""
        rate = (tally.targets - self.first_targets) / max(elapsed_s, 1e-9)
        left = duration((self.of_targets - tally.targets) / rate) if rate else "?"
        spent_s = elapsed_s + (self.begun or self.opened) - self.opened
        allowed_s = max(EVAL_S - spent_s, 0.0)
        of_task = f"({allowed_s:.0f} of the task's {EVAL_S:.0f} s)"
        return f"{left} left {of_task}  {rate:,.0f} tokens/s  {self.so_far(tally)}"

    def so_far(self, tally: Tally) -> str:
        """How much is scored, and how well."""
        bpb = "-" if tally.bpb_so_far is None else f"{tally.bpb_so_far:.4f}"
        return (
            f"{tally.targets / self.of_targets:4.0%}  {tally.targets:,} of {self.of_targets:,} "
            f"targets  BPB so far {bpb}{self.label}"
        )


def duration(seconds: float) -> str:
    """Two units: 3 h 12 min, 12 min 5 s, 5 s."""
    minutes, whole_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole_s} s" if minutes else f"{whole_s} s"
