"""What scoring asks of an engine: the last targets alone, longer windows, whole distributions."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.arch.rope import longer_tables, rotary_tables
from core.arch.spec import ModelSpec
from core.data.shards import TokenStream
from core.score.bpb import Tally
from core.score.mixture import CacheMixture, Normalised
from core.score.protocols import Protocol
from core.score.scorers import Plain
from core.score.tape import Tape
from core.score.windows import Window
from tests.parity import oracle
from tests.parity.cases import CASES, QATS, RULES, spec_of
from tests.parity.engines import ENGINES, batch_of, engine, perturbed

SPECS = [case for case in CASES if case not in (*RULES, *QATS)]
LONGER = (
    "baseline",
    "rope_ntk",
    "rope_yarn",
    "partial_rope",
    "windows",
    "doc_mask",
    "smear_static",
)
NATS = 2e-5  # of one target; val_loss, a mean of many, has 2e-6


def opened(name: str, spec: ModelSpec) -> Any:
    group = engine(name).distributed.Solo()
    return engine(name).evaluate.open_evaluator(perturbed(spec), spec, "fp32", group)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", SPECS)
def test_the_last_targets_are_those_of_the_whole(case: str, name: str) -> None:
    spec = spec_of(case)
    model, (x, y) = opened(name, spec), batch_of(spec, 3)
    whole = model.nats(x, y)
    for last in (1, 5, spec.seq_len):
        part = model.nats(x, np.ascontiguousarray(y[:, -last:]))
        assert part.shape == (3, last) and part.dtype == np.float32
        assert np.abs(part - whole[:, -last:]).max() <= NATS
    log_probs = model.log_probs(x, 5)
    assert log_probs.shape == (3, 5, spec.vocab_size)
    assert np.abs(np.exp(log_probs.astype(np.float64)).sum(-1) - 1).max() <= 1e-5
    looked_up = -np.take_along_axis(log_probs, y[:, -5:, None], -1)[..., 0]
    assert np.abs(looked_up - whole[:, -5:]).max() <= NATS
    assert np.abs(model.next_logits(x).max(-1)).max() < 100


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("case", LONGER)
def test_windows_longer_than_in_training(case: str, name: str) -> None:
    """The same numbers as of a model of that length, whose scaling starts where training was."""
    spec = spec_of(case)
    trained = spec.rope_train_len or spec.seq_len
    longer = replace(spec, seq_len=3 * spec.seq_len, rope_train_len=trained)
    x, y = batch_of(longer, 2)
    expected = oracle.nats(perturbed(spec), longer, x, y)
    assert np.abs(opened(name, spec).nats(x, y) - expected).max() <= NATS


@pytest.mark.parametrize("name", ENGINES)
def test_an_odd_last_batch_compiles_nothing_anew(name: str) -> None:
    """Seven windows in batches of three, the last window cut short: one graph scores them all."""
    spec = spec_of("baseline")
    x, _ = batch_of(spec, 8)
    stream = TokenStream([x.astype(np.uint16).reshape(-1)[: 7 * spec.seq_len - 4]])
    model, graphs, batches = opened(name, spec), [], []
    plain = model.model.token_nats

    def traced(tokens: Any, targets: Any) -> Any:
        graphs.append(tokens.shape)
        return plain(tokens, targets)

    if name == "torch":
        torch: Any = importlib.import_module("torch")

        def backend(graph: Any, _: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(plain, backend=backend, dynamic=False, fullgraph=True)
    else:
        compiled = importlib.import_module("mlx.core").compile(traced)

    def nats(tokens: Any, targets: Any, phase: int, last: int) -> Any:
        batches.append(tokens.shape)
        return compiled(tokens, targets)

    model.model.token_nats = nats
    tally = Tally(len(stream), has_raw=False)

    def bytes_of(window: Window) -> Any:
        return np.ones(window.count, np.int64), None

    windows = Protocol(name="chunked").windows(stream, spec.seq_len)
    Tape(stream, windows, (3, spec.seq_len), bytes_of, tally).play(Plain(model.nats))
    assert tally.result().tokens == len(stream) - 1
    assert len(batches) == 3 and len(graphs) == 1


def test_tables_of_a_longer_window() -> None:
    """Unscaled, what is there goes on; scaled, the frequencies are those of the new length."""
    plain, ntk = spec_of("baseline"), spec_of("rope_ntk")
    for short, long in zip(rotary_tables(plain), longer_tables(plain, 60), strict=True):
        assert np.array_equal(short, long[: len(short)]) and len(long) == 60
    (short, _), (long, _) = rotary_tables(ntk), longer_tables(ntk, 60)
    assert not np.allclose(short[1], long[1])


def test_the_mixture_is_the_same_on_both_engines() -> None:
    """On the model's whole distribution; text that repeats is cheaper by it."""
    spec = spec_of("baseline")
    x, _ = batch_of(spec, 2)
    stream = TokenStream([np.tile(x[0].astype(np.uint16), 8)])
    protocol, size = Protocol(name="sliding", stride=6), len(stream)
    found = {}
    for name in ENGINES:
        model = opened(name, spec)
        for share in (0.0, 0.5):
            tally = Tally(size, has_raw=False)

            def bytes_of(window: Window) -> Any:
                return np.ones(window.count, np.int64), None

            windows = protocol.windows(stream, spec.seq_len)
            tape = Tape(stream, windows, (1, spec.seq_len), bytes_of, tally)
            tape.play(Normalised(CacheMixture(model.log_probs, share=share)))
            found[name, share] = tally.result().val_bpb
    for share in (0.0, 0.5):
        assert abs(found["torch", share] - found["mlx", share]) <= 1e-6
    assert found["torch", 0.5] < 0.9 * found["torch", 0.0]
