"""An audited scorer: the streams it was played over, its answers, and how a finding is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.arch.spec import BOS
from core.data.findings import Finding, Status
from core.score.answers import Answer, apart
from core.score.plays import Kind, Play
from core.score.rules import SCORER_BY_ID

TOLERANCE_NATS = 1e-4  # kernels depend on the shape of what they are given
NOISE = 10.0  # times the difference of two equal plays: what chance may do


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A scorer's answers; `isolates`: whether it claims that documents are.

    `by_document`: each document is scored from left to right, and they in an order of their own.
    `told_length`: it is known to be told how long the text is, as a rate that falls over it is.
    """

    subject: str
    plays: Sequence[Play]
    answers: Sequence[Answer]
    vocab_size: int
    tolerance_nats: float = TOLERANCE_NATS
    isolates: bool = False
    by_document: bool = False
    told_length: bool = False
    real: bool = False  # the stream is the validation text

    @property
    def base(self) -> Answer:
        return self.answers[0]

    @property
    def noise_nats(self) -> float:
        """By how much two plays of one stream differ."""
        again = self.of("again")[0][1]
        return 0.0 if again.error else float(apart(self.base.nats, again.nats).max(initial=0.0))

    @property
    def bound_nats(self) -> float:
        """More than this is a difference that means something."""
        noise = self.noise_nats
        return NOISE * noise if noise > self.tolerance_nats else self.tolerance_nats

    def document(self, target: int) -> int:
        """Which one's tokens a target is scored behind; 0 of all, where they have no order."""
        if not self.by_document:
            return 0
        return int((self.plays[0].tokens[:target] == BOS).sum())

    def of(self, *kinds: Kind) -> list[tuple[Play, Answer]]:
        pairs = zip(self.plays, self.answers, strict=True)
        return [(play, answer) for play, answer in pairs if play.kind in kinds]

    def say(self, rule: str, status: Status, evidence: str) -> Finding:
        source = SCORER_BY_ID[rule].source
        return Finding(
            rule=rule, status=status, subject=self.subject, evidence=evidence, source=source
        )

    def unless_noisy(self, said: str) -> tuple[Status, str]:
        """PASS, unless chance moves the scores."""
        if self.noise_nats > self.tolerance_nats:
            return "UNDECIDED", f"{said}; but equal plays differ by {self.noise_nats:.3g} nats"
        return "PASS", said
