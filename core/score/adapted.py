"""A split scored by a model that learns on the way, once its plain score is reproduced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from core.arch.noise import random_bits, stream_of
from core.arch.spec import ModelSpec
from core.score.adapting import Arrays, Learned, Learner, Marks, scorer_of
from core.score.bpb import Scored, Tally
from core.score.courses import Chunks, Documents, all_windows, plan_of
from core.score.divided import Divided
from core.score.scorers import Plain, Ranks
from core.score.scoring import NatsOf, Validation, bytes_of, open_tally, with_interval
from core.score.subsets import Subset
from core.score.tape import Course, Tape
from core.score.windows import Rows, Window, Windows

FEW_WINDOWS = 4  # so many windows' targets are scored plain and un-adapted, and compared
Keep = Callable[[Tally, Learned], None]
BPB_GAPS = {"fp32": 1e-6}  # that the two may be apart ...
BF16_BPB_GAP = 1e-3  # ... with products in bfloat16
WARM_UP = (2, 8)  # rows and tokens


def score_adapting(
    learner: Learner,
    nats_of: NatsOf,
    validation: Validation,
    spec: ModelSpec,
    batch: int,
    precision: str,
    after: Callable[[Tally], None] | None = None,
    tally: Tally | None = None,
    ranks: Ranks | None = None,
    keep: Keep | None = None,
    learned: Learned | None = None,
) -> Scored:
    """Score every target once, and learn behind each block what the validation's adaptation says.

    nats_of: of the same model, plain. ValueError where the two differ before anything is learned.
    The model's weights may be others behind this. `ranks` share the rows of each block. `keep` is
    called wherever another scoring could go on, from the tally as it is there and what was learned;
    `learned`, with the tally that belongs to it, is where this one does.
    """
    if ranks is not None and ranks.world_size > 1:
        learner = Divided(learner, ranks)
    warm_up(learner, validation, spec)
    require_unadapted(learner, nats_of, validation, spec, batch, precision)
    windows = adapted_windows(validation, spec.seq_len, batch)
    tally = open_tally(validation, spec.seq_len, windows) if tally is None else tally
    play(learner, validation, spec.seq_len, batch, tally, after, keep, learned)
    return with_interval(tally, validation, windows)


def adapted_windows(validation: Validation, seq_len: int, batch: int) -> Sequence[Window]:
    """Of a subset, in the order in which they are scored; of the whole split there is no need."""
    if validation.subset is None:
        return ()
    return all_windows(_plan(validation, seq_len, batch))


def require_unadapted(
    learner: Learner,
    nats_of: NatsOf,
    validation: Validation,
    spec: ModelSpec,
    batch: int,
    precision: str,
) -> None:
    """Raise ValueError unless the adapting path, nothing learned, gives the plain score.

    Over the first few windows' targets. What a scorer learns is as good as the model it starts
    from, and a second forward pass is where others have lost a point of BPB.
    """
    most = validation.of_targets if validation.subset is None else validation.subset.targets
    targets = min(FEW_WINDOWS * validation.protocol.length(spec.seq_len), most)
    few = replace(validation, subset=Subset(name=f"first-{targets}", targets=targets))
    plain, still = (_few(few, spec.seq_len, batch, adapts) for adapts in (False, True))
    shape = batch, validation.protocol.length(spec.seq_len)
    windows = few.windows(spec.seq_len)
    Tape(few.stream, windows, shape, partial(bytes_of, few), plain).play(Plain(nats_of))
    play(Unmoved(learner), few, spec.seq_len, batch, still)
    found, expected = still.bpb_so_far or 0.0, plain.bpb_so_far or 0.0
    gap = BPB_GAPS.get(precision, BF16_BPB_GAP)
    if not abs(found - expected) <= gap:
        raise ValueError(
            f"before it learns anything the adapting model scores {found:.8f} BPB over the first "
            f"{still.targets} targets, the plain one {expected:.8f}: more than {gap} apart, so "
            "what it learns would be of another model"
        )


def warm_up(learner: Learner, validation: Validation, spec: ModelSpec) -> None:
    """What a first step compiles and allocates, on random tokens; nothing stays of it."""
    bits = random_bits(0, stream_of("warm up"), 2 * WARM_UP[0] * WARM_UP[1])
    x, y = (bits % np.uint64(spec.vocab_size)).astype(np.int32).reshape(2, *WARM_UP)
    marks = np.full(WARM_UP, 1.0 / x.shape[1], np.float32)
    adaptation = validation.adaptation
    assert adaptation is not None
    if adaptation.per_document:
        learner.reset(len(x), warm=False)
        learner.nats(x, y, marks)
        learner.learn()
        learner.reset(len(x), warm=False)
    if adaptation.descends:
        learner.descend(x, y, marks / np.float32(len(x)), 0.0)
        learner.still()


class Unmoved:
    """A learner that learns nothing."""

    def __init__(self, learner: Learner) -> None:
        self.nats, self.state = learner.nats, learner.state
        self.reset, self.trim = learner.reset, learner.trim

    def learn(self) -> None:
        """No step."""

    def descend(self, x: Rows, y: Rows, marks: Marks, lr: float) -> None:
        """No step."""

    def still(self) -> None:
        """There is no momentum."""

    def lasting(self) -> Arrays:
        """Nothing was learned."""
        return {}

    def go_on(self, held: Arrays) -> None:
        """There is nothing."""


def _few(validation: Validation, seq_len: int, batch: int, adapts: bool) -> Tally:
    """A tally of a subset, by the plain windows or by those of the adaptation."""
    if not adapts:
        return open_tally(validation, seq_len)
    return open_tally(validation, seq_len, adapted_windows(validation, seq_len, batch))


def _plan(validation: Validation, seq_len: int, batch: int) -> Chunks | Documents:
    windows, adaptation = validation.windows(seq_len), validation.adaptation
    assert isinstance(windows, Windows) and adaptation is not None
    return plan_of(windows, adaptation, batch)


def play(
    learner: Learner,
    validation: Validation,
    seq_len: int,
    batch: int,
    tally: Tally,
    after: Callable[[Tally], None] | None = None,
    keep: Keep | None = None,
    learned: Learned | None = None,
) -> None:
    """Go through the validation by its plan; the tally holds the score."""
    windows, adaptation = validation.windows(seq_len), validation.adaptation
    assert isinstance(windows, Windows) and adaptation is not None
    plan = _plan(validation, seq_len, batch)
    left = learned.state_hash if learned else ""
    course = Course(blocks=(turn.windows for turn in plan), edges=windows.edges, state_hash=left)
    shape = batch, validation.protocol.length(seq_len)
    of_bytes = partial(bytes_of, validation)
    tape = Tape(validation.stream, windows, shape, of_bytes, tally, course)
    scorer = scorer_of(learner, plan, adaptation, seq_len, tape.tokens)
    if learned is not None:
        scorer.go_on(learned.arrays)

    def behind(tally: Tally) -> None:
        arrays = scorer.lasting() if keep is not None else None
        if keep is not None and arrays is not None:
            keep(tally, Learned(arrays=arrays, state_hash=tape.state_hash))
        if after is not None:
            after(tally)

    tape.play(scorer, behind)
