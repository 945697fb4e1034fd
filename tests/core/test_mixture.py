"""The reference mixture: a distribution, of the past alone, that learns what repeats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.arch.noise import uniform
from core.data.shards import TokenStream
from core.score.bpb import Tally
from core.score.mixture import CacheMixture, LogProbs, Normalised
from core.score.protocols import Protocol
from core.score.scorers import Alone, Block, State
from core.score.tape import RuleBroken, Tape
from core.score.windows import Rows, Window

VOCAB, SEQ_LEN = 40, 16
SLIDES = Protocol(name="sliding", seq_len=SEQ_LEN, stride=4)


def drawn(count: int, seed: int = 3) -> list[int]:
    """Tokens but for BOS, each as likely."""
    return (2 + uniform(seed, 1, (count,)) * (VOCAB - 2)).astype(int).tolist()


REPEATED = [1, *(drawn(30) * 12)]
RANDOM = [1, *drawn(360)]


def model(x: Rows, last: int) -> LogProbs:
    """Somewhat sure of what the input says, and normalised."""
    logits = np.cos(np.arange(VOCAB) * (x[:, -last:, None] + 1.0))
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


class Recorded(CacheMixture):
    """Keeps the distributions that it gave, by the position of the target."""

    def __init__(self) -> None:
        super().__init__(model)
        self.given: list[LogProbs] = []

    def log_probs(self, x: Rows, last: int) -> LogProbs:
        found = super().log_probs(x, last)
        self.given.append(found[0])
        return found


class Fixed(CacheMixture):
    """Never observes."""

    def observe(self, block: Block) -> None:
        """Nothing."""


def val_loss(tokens: list[int], distribution: CacheMixture, protocol: Protocol = SLIDES) -> float:
    stream, tally = TokenStream([np.array(tokens, np.uint16)]), Tally(len(tokens), has_raw=False)

    def bytes_of(window: Window) -> tuple[np.ndarray, None]:
        return np.ones(window.count, np.int64), None

    tape = Tape(stream, protocol.windows(stream, SEQ_LEN), (1, SEQ_LEN), bytes_of, tally)
    tape.play(Normalised(distribution), ranks=Alone())
    return tally.result().val_loss


def test_the_score_falls_on_what_repeats() -> None:
    plain, mixed = (val_loss(REPEATED, kind(model)) for kind in (Fixed, CacheMixture))
    assert plain == pytest.approx(math.log(VOCAB), rel=0.2)
    assert mixed < 0.75 * plain
    plain, mixed = (val_loss(RANDOM, kind(model)) for kind in (Fixed, CacheMixture))
    assert mixed == pytest.approx(plain, rel=0.05), "nothing to learn, little to lose"


def test_every_distribution_sums_to_one() -> None:
    recorded = Recorded()
    val_loss(REPEATED, recorded)
    sums = np.exp(np.concatenate(recorded.given)).sum(-1)
    assert np.abs(sums - 1).max() < 1e-6 and len(sums) >= len(REPEATED) - 1


@pytest.mark.parametrize("at", [7, 100, 101, 102, 103, 250])
def test_a_distribution_does_not_know_its_token_or_any_later_one(at: int) -> None:
    """Flip the tokens from `at` on: what was given for the targets up to `at` has the same bits."""
    flipped = [*REPEATED[:at], *((t + 5) % (VOCAB - 2) + 2 for t in REPEATED[at:])]
    found = []
    for tokens in (REPEATED, flipped):
        recorded = Recorded()
        val_loss(tokens, recorded)
        found.append(np.concatenate(recorded.given)[:at])  # targets 1 .. at
    assert np.array_equal(*found)


def test_it_counts_what_followed() -> None:
    """By hand: behind 5 6 came 7 twice and 8 once; w = 0.3 * 3 / 4."""
    mixture = CacheMixture(lambda x, last: np.log(np.full((*x.shape, 10), 0.1)), order=2)
    x, y = np.array([[1, 5, 6, 7, 5, 6, 8, 5, 6, 7]]), np.array([[5, 6, 7, 5, 6, 8, 5, 6, 7, 2]])
    mixture.observe(Block(windows=[Window(0, 10)], x=x, y=y))
    assert mixture.state()["cache"].tolist() == [1, *y[0]]
    probs = np.exp(mixture.log_probs(np.array([[5, 6], [6, 9]], np.int32), 2))
    share = 0.3 * 3 / 4
    assert probs[0, 1, 7] == pytest.approx((1 - share) * 0.1 + share * 2 / 3)
    assert probs[0, 1, 8] == pytest.approx((1 - share) * 0.1 + share / 3)
    assert probs[0, 1, 2] == pytest.approx((1 - share) * 0.1)
    assert probs[1] == pytest.approx(0.1) and probs[0, 0] == pytest.approx(0.1)


class Inflated:
    """Adds to the token that it hopes for, and takes from none."""

    def log_probs(self, x: Rows, last: int) -> LogProbs:
        found = model(x, last)
        found[..., 7] += 0.5
        return found

    def observe(self, block: Block) -> None:
        """Nothing."""

    def state(self) -> State:
        return {}


def test_what_does_not_add_up_is_refused() -> None:
    stream = TokenStream([np.array(RANDOM, np.uint16)])
    windows, tally = SLIDES.windows(stream, 0), Tally(len(RANDOM), has_raw=False)
    tape = Tape(stream, windows, (1, SEQ_LEN), lambda w: (np.ones(w.count, int), None), tally)
    with pytest.raises(RuleBroken, match="rule normalised: .* target 1 has the sum 1.0"):
        tape.play(Normalised(Inflated()))


def test_its_settings_are_checked() -> None:
    for wrong in ({"order": 0}, {"reach": 2}, {"share": 1.0}):
        with pytest.raises(ValueError, match="expected an order of at least 1"):
            CacheMixture(model, **wrong)
