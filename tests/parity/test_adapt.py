"""Adaptation on both engines: the same score, and none that depends on who stands beside whom."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from core.arch.noise import random_bits, stream_of
from core.arch.spec import BOS, ModelSpec
from core.data.shards import TokenStream
from core.data.token_bytes import ByteTable
from core.score.adaptation import Adapt, Adaptation, Lora, Phased, Sgd
from core.score.adapted import Unmoved, score_adapting
from core.score.bpb import Scored
from core.score.courses import plan_of
from core.score.protocols import Protocol
from core.score.scoring import Validation, score
from core.score.windows import Windows
from tests.parity.cases import recipe_of, spec_of
from tests.parity.engines import ENGINES, control, engine, perturbed

ADAPTS: tuple[Adapt, ...] = ("sgd", "lora", "phased")
# A record scaled down has loops, lanes, gates, smear and a document mask; the rest is what an
# adapter could be missed by: other linears, a head of its own or behind a factored table.
CASES = (
    *("baseline", "r1061", "r1081", "partial_tying_lanes_in_turn"),
    *("factored_untied", "random_swiglu", "ternary"),
)
LONG = ("baseline", "r1061")  # over at least 50 chunks or documents
FLOORED = 1e-7  # BPB: what a sum of float32 nats leaves open, however exact the rest is
BPB_GAP = 1e-4  # two engines, after at least 50 updates
PLAIN_GAP = 1e-6  # nothing learned
BF16_GAP = 1e-3


def how(name: Adapt, docs_batch: int = 4, **lora: Any) -> Adaptation:
    """Rates at which the score moves by far more than the bounds.

    At three times this rate AdamW without a mean (beta1 of 0) takes whole steps by the signs
    of gradients that are nothing but rounding: two engines, or two batches, part by 1e-3.
    """
    return Adaptation(
        name=name,
        sgd=Sgd(lr=0.02, chunk_tokens=48, batch_seqs=2, epochs=2),
        lora=Lora(**{"rank": 4, "alpha": 8, "lr": 0.003, "docs_batch": docs_batch, **lora}),
        phased=Phased(prefix_docs=20, phases=3),
    )


def text(size: int, vocab: int) -> TokenStream:
    """Skewed ids in documents of 5 to 64 tokens."""
    bits = random_bits(3, stream_of("text"), size)
    drawn = (bits >> np.uint64(11)).astype(np.float64) / 2**53
    tokens = (2 + drawn**3 * (vocab - 2)).astype(np.uint16)
    starts = np.cumsum(5 + (bits % np.uint64(60)).astype(np.int64))
    tokens[starts[starts < size]] = BOS
    tokens[0] = BOS
    return TokenStream([tokens])


def validation_of(spec: ModelSpec, adaptation: Adaptation, size: int = 400) -> Validation:
    ones = np.ones(spec.vocab_size, np.int64)
    table = ByteTable(ones, ones < 0, ones < 0)
    name = "sliding" if adaptation.name == "sgd" else "strided-docs"
    protocol = Protocol(name=name, stride=8)  # type: ignore[arg-type]
    return Validation(text(size, spec.vocab_size), None, table, None, "", protocol, adaptation)


def opened(name: str, spec: ModelSpec, precision: str = "fp32") -> Any:
    group = engine(name).distributed.Solo()
    return engine(name).evaluate.open_evaluator(perturbed(spec), spec, precision, group)


def adapted(
    name: str, spec: ModelSpec, validation: Validation, batch: int = 8, precision: str = "fp32"
) -> Scored:
    model = opened(name, spec, precision)
    learner = engine(name).adapt.Learner(model.model, validation.adaptation)
    return score_adapting(learner, model.nats, validation, spec, batch, precision)


@cache
def by_float64(case: str, adapt: Adapt, size: int) -> float:
    """The same by torch in float64."""
    recipe = recipe_of(case)
    validation = validation_of(recipe.arch, how(adapt), size)
    with control(recipe, perturbed(recipe.arch)) as run:
        model = run.engine.evaluate.Evaluator(run.trainer.model)
        learner = run.engine.adapt.Learner(run.trainer.model, validation.adaptation)
        found = score_adapting(learner, model.nats, validation, recipe.arch, 8, "fp32")
    return found.val_bpb


@pytest.mark.parametrize("adapt", ADAPTS)
@pytest.mark.parametrize("case", CASES)
def test_both_engines_learn_the_same(case: str, adapt: Adapt) -> None:
    """And within ten times of what float32 itself costs."""
    spec, size = spec_of(case), 2500 if case in LONG else 400
    validation = validation_of(spec, how(adapt), size)
    windows = validation.windows(spec.seq_len)
    assert isinstance(windows, Windows)
    parts = plan_of(windows, how(adapt), 8).sizes if adapt == "sgd" else windows.edges[1:]
    assert case not in LONG or len(parts) >= 50
    torch, mlx = (adapted(name, spec, validation) for name in ENGINES)
    plain = score(opened("torch", spec).nats, validation.plain(), spec.seq_len, 8)
    assert abs(torch.val_bpb - plain.val_bpb) > 5 * BPB_GAP, "something was learned"
    assert abs(torch.val_bpb - mlx.val_bpb) <= BPB_GAP
    exact = by_float64(case, adapt, size)
    alone = max(abs(torch.val_bpb - exact), FLOORED)
    assert abs(mlx.val_bpb - exact) <= 10 * alone


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("adapt", ADAPTS[:2])
@pytest.mark.parametrize("case", CASES)
def test_nothing_learned_is_the_plain_score(case: str, adapt: Adapt, name: str) -> None:
    """However many documents stand side by side, and in any batch of windows."""
    spec = spec_of(case)
    model = opened(name, spec)
    plain = score(model.nats, validation_of(spec, how(adapt)).plain(), spec.seq_len, 8)
    for docs_batch, batch in ((1, 3), (5, 64)):
        validation = validation_of(spec, how(adapt, docs_batch))
        learner = engine(name).adapt.Learner(model.model, validation.adaptation)
        found = score_adapting(Unmoved(learner), model.nats, validation, spec, batch, "fp32")
        assert abs(found.val_bpb - plain.val_bpb) <= PLAIN_GAP
        assert (found.tokens, found.bytes) == (plain.tokens, plain.bytes)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("adapt", ADAPTS)
def test_in_bfloat16(adapt: Adapt, name: str) -> None:
    """Un-adapted it is within 1e-3 of the plain score, as scoring asserts; adapted it is near."""
    spec = spec_of("r1061")
    validation = validation_of(spec, how(adapt))
    plain = score(opened(name, spec).nats, validation.plain(), spec.seq_len, 8).val_bpb
    learned = adapted(name, spec, validation).val_bpb - plain
    precision = {"torch": "autocast", "mlx": "cast"}[name]
    found = adapted(name, spec, validation, precision=precision)
    assert abs(found.val_bpb - plain - learned) <= 0.1 * abs(learned) + BF16_GAP


@pytest.mark.parametrize("name", ENGINES)
def test_documents_apart_do_not_know_of_each_other(name: str) -> None:
    """With adapters that start anew, no score depends on who stands beside whom."""
    spec = spec_of("r1061")
    found = {
        docs_batch: adapted(
            name, spec, validation_of(spec, how("lora", docs_batch, warm_a=False))
        ).val_bpb
        for docs_batch in (1, 4, 64)
    }
    assert max(found.values()) - min(found.values()) <= PLAIN_GAP
    warm = adapted(name, spec, validation_of(spec, how("lora", 4))).val_bpb
    assert abs(warm - found[4]) > PLAIN_GAP, "a warm A is not the same"


@pytest.mark.parametrize("name", ENGINES)
def test_what_can_change_is_in_the_state(name: str) -> None:
    """One bit of any array, two entries that trade places, a step: each gives another checksum."""
    spec = spec_of("baseline")
    model = opened(name, spec)
    learner = engine(name).adapt.Learner(model.model, how("phased"))
    learner.reset(3, warm=False)
    x = (np.arange(3 * 8, dtype=np.int32) % 90).reshape(3, 8)
    marks = np.full((3, 4), 0.25, np.float32)
    y = x[:, 4:].copy()

    def seen() -> bytes:
        return b"".join(part.tobytes() for part in learner.state().values())

    start = seen()
    learner.nats(x, y, marks)
    assert seen() == start, "to be scored changes nothing"
    told = [start]
    learner.learn()
    told.append(seen())
    learner.trim(2)
    told.append(seen())
    learner.descend(y, y, marks / 3, 0.01)
    told.append(seen())
    learner.still()
    told.append(seen())
    learner.reset(3, warm=True)
    told.append(seen())
    assert len(set(told)) == len(told)
    checksum, array = engine(name).adapt.checksum, engine(name).array
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    swapped, nudged = values.copy(), values.copy()
    swapped[0, 1], swapped[2, 3] = values[2, 3], values[0, 1]
    nudged[1, 2] = np.nextafter(values[1, 2], np.float32(100))
    sums = {int(checksum(array(one))) for one in (values, swapped, nudged)}
    assert len(sums) == 3


def test_a_nan_names_its_token_and_its_document() -> None:
    """At a rate that destroys the weights: the blocks before are kept."""
    spec = spec_of("baseline")
    wild = how("sgd")
    wild = replace(wild, sgd=replace(wild.sgd, lr=1e30, clip_norm=0.0))
    for name in ENGINES:
        with pytest.raises(ValueError, match=r"not finite: nan; it is token \d+ of document \d+"):
            adapted(name, spec, validation_of(spec, wild))
