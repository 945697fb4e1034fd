"""Scoring protocols: what is scored with which tokens before it, each target once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.arch.spec import BOS
from core.data.shards import TokenStream
from core.score.protocols import ISOLATES, SLIDES, Protocol, ProtocolName, documents
from core.score.scoring import Score
from core.score.windows import Window, Windows, batches, fill

B = BOS
# The tokens, the protocol, and the plan: `context > targets` of each window, as positions.
TABLE: list[tuple[list[int], Protocol, str]] = [
    ([B, 5, 6, 7, 8], Protocol(seq_len=2), "0 1 > 1 2; 2 3 > 3 4"),
    ([B, 5, 6, 7, 8, 9], Protocol(seq_len=2), "0 1 > 1 2; 2 3 > 3 4; 4 > 5"),
    ([B, 5], Protocol(seq_len=4), "0 > 1"),
    (
        [B, 5, 6, 7, 8, 9, 4],
        Protocol(name="sliding", seq_len=4, stride=1),
        "0 1 2 3 > 1 2 3 4; 1 2 3 4 > 5; 2 3 4 5 > 6",
    ),
    (
        [B, 5, 6, 7, 8, 9, 4, 3],
        Protocol(name="sliding", seq_len=4, stride=2),
        "0 1 2 3 > 1 2 3 4; 2 3 4 5 > 5 6; 4 5 6 > 7",  # the tail keeps its place: it is short
    ),
    (
        [B, 5, B, 7, 8],
        Protocol(name="sliding", seq_len=2, stride=2),
        "0 1 > 1 2; 2 3 > 3 4",  # a stride of all: chunked, and across documents
    ),
    (
        [B, 5, 6, 7, B, 8, B, B, 9],
        Protocol(name="docs", seq_len=2),
        "0 1 > 1 2; 4 5 > 5 6; 6 > 7; 7 > 8; 2 3 > 3 4",  # first windows first
    ),
    (
        [B, 5, 6, 7, B, 8, B, 4, 9],
        Protocol(name="docs", seq_len=9),
        "0 1 2 3 > 1 2 3 4; 4 5 > 5 6; 6 7 > 7 8",  # each BOS ends the document before it
    ),
    ([5, 6, B, 7], Protocol(name="docs", seq_len=9), "0 1 > 1 2; 2 > 3"),  # no BOS at the start
    ([B, 5, B], Protocol(name="docs", seq_len=9), "0 1 > 1 2"),  # a BOS at the end
    ([5, 6, 7], Protocol(name="docs", seq_len=9), "0 1 > 1 2"),  # no BOS at all
    (
        [B, 5, 6, 7, 8, B, 9, 4, 3],
        Protocol(name="strided-docs", seq_len=3, stride=1),
        "0 1 2 > 1 2 3; 5 6 7 > 6 7 8; 1 2 3 > 4; 2 3 4 > 5",
    ),
]


def stream_of(tokens: list[int]) -> TokenStream:
    return TokenStream([np.array(tokens, np.uint16)])


def read(window: Window) -> str:
    context = range(window.start, window.start + window.skip + window.count)
    targets = range(window.first, window.stop)
    return f"{' '.join(map(str, context))} > {' '.join(map(str, targets))}"


@pytest.mark.parametrize(("tokens", "protocol", "plan"), TABLE)
def test_what_is_scored_with_which_context(
    tokens: list[int], protocol: Protocol, plan: str
) -> None:
    windows = protocol.windows(stream_of(tokens), 1000)
    assert "; ".join(map(read, windows)) == plan


def plans() -> st.SearchStrategy[tuple[list[int], Protocol]]:
    """Documents, empty ones too, with or without a BOS before the first."""
    names: tuple[ProtocolName, ...] = ("chunked", "sliding", "docs", "strided-docs")

    def protocol_of(name: ProtocolName, seq_len: int, stride: int) -> Protocol:
        return Protocol(name=name, seq_len=seq_len, stride=1 + stride % seq_len)

    sizes = st.integers(1, 12)
    protocols = st.builds(protocol_of, st.sampled_from(names), sizes, sizes)
    tokens = st.lists(st.sampled_from([B, 7, 8, 9, 10, 11]), min_size=2, max_size=60)
    return st.tuples(tokens, protocols)


@given(plans(), st.integers(1, 5))
def test_every_target_once_whatever_the_protocol(
    plan: tuple[list[int], Protocol], batch: int
) -> None:
    tokens, protocol = plan
    stream = stream_of(tokens)
    windows = protocol.windows(stream, 1000)
    targets = [t for w in windows for t in range(w.first, w.stop)]
    assert sorted(targets) == list(range(1, len(tokens)))
    assert windows.targets == len(tokens) - 1
    assert list(windows)[1:] == windows[1:] and len(list(windows)) == len(windows)
    least = protocol.seq_len - protocol.stride if protocol.name in SLIDES else 0
    for window in windows:
        assert 1 <= window.skip + window.count <= protocol.seq_len
        inputs = tokens[window.start : window.start + window.skip + window.count]
        if protocol.name in ISOLATES:
            assert B not in inputs[1:], "a document's tokens alone"
        if window.skip:
            assert window.skip == least
        elif protocol.name in SLIDES:
            begins = window.start == 0 or tokens[window.start] == B
            assert begins or protocol.stride == protocol.seq_len
    groups = list(batches(windows, batch))
    assert [w for group in groups for w in group] == list(windows)
    for group in groups:
        x, y = fill(stream, group, batch, protocol.seq_len)
        for row, window in enumerate(group):
            length = window.skip + window.count
            assert x[row, :length].tolist() == tokens[window.start : window.start + length]
            assert not x[row, length:].any() and not y[row, window.count :].any()
            assert y[row, : window.count].tolist() == tokens[window.first : window.stop]
            assert x.shape[1] - y.shape[1] == window.skip


@given(plans(), st.integers(1, 60))
def test_the_first_targets_are_a_plan_too(plan: tuple[list[int], Protocol], count: int) -> None:
    tokens, protocol = plan
    part = protocol.windows(stream_of(tokens), 1000).until(count)
    targets = sorted(t for w in part for t in range(w.first, w.stop))
    assert (
        targets == list(range(1, min(count, len(tokens) - 1) + 1)) and len(targets) == part.targets
    )


def test_documents_are_where_bos_is() -> None:
    tokens = [B, 5, B, B, 6, B]
    assert documents(stream_of(tokens)).tolist() == [0, 2, 3, 5]
    parts = TokenStream([np.array(tokens[:3], np.uint16), np.array(tokens[3:], np.uint16)])
    assert documents(parts).tolist() == [0, 2, 3, 5]
    with pytest.raises(ValueError, match="1 tokens hold no target"):
        documents(stream_of([B]))


def test_a_plan_of_the_whole_task_is_numbers_alone() -> None:
    """Sixty million targets with a stride of 16: nothing is held for each window."""
    windows = Windows(np.array([0, 62_021_846]), 2048, 16)
    assert len(windows) == 1 + -(-(62_021_846 - 2048) // 16)
    assert windows[-1].stop == 62_021_847 and windows[1] == Window(16, 16, 2032)


def test_settings_of_a_protocol() -> None:
    assert Score().windows_by == Protocol() and Protocol().label() is None
    slides = Score(protocol="sliding", stride=16, seq_len=2048).windows_by
    assert slides.label() == "sliding, stride 16, seq_len 2048"
    assert (slides.length(1024), slides.cost(1024), slides.window_targets(1024)) == (2048, 128, 16)
    assert Protocol(name="docs").label() == "docs" and Protocol(name="docs").cost(64) == 1
    assert Protocol(seq_len=99).label() == "chunked, seq_len 99"
    with pytest.raises(ValueError, match=r"score\.stride 0 must be at least 1"):
        Score(stride=0)
    with pytest.raises(ValueError, match=r"score\.seq_len -1 must not be negative"):
        Score(seq_len=-1)
    with pytest.raises(ValueError, match=r"score\.stride 64 exceeds the 32 tokens of a window"):
        Protocol(name="sliding").windows(stream_of([B, 5]), 32)
