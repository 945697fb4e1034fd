"""What runs in a stranger's process: the state's fingerprint, and what is read of its answers."""

from __future__ import annotations

import io
from collections import Counter, deque
from typing import Any

import numpy as np
import pytest

from core.score.plays import Play
from tools.auditing.driver import fingerprint, play, write
from tools.auditing.stranger import _answer, _head


class Box:
    """An object with fields."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


def array(*numbers: float) -> np.ndarray:
    return np.array(numbers)


# state, and the same with one thing changed
PAIRS: dict[str, tuple[Any, Any]] = {
    "number": (1, 2),
    "kind of number": (1, 1.0),
    "text": ("a", "b"),
    "array": (array(1, 2), array(1, 3)),
    "shape": (array(1, 2), array(1, 2)[None]),
    "type": (array(1, 2), array(1, 2).astype(np.float32)),
    "list": ([1, 2], [2, 1]),
    "key": ({"a": 1}, {"b": 1}),
    "value": ({"a": 1}, {"a": 2}),
    "deep": ({"a": [{"b": array(1)}]}, {"a": [{"b": array(2)}]}),
    "object": (Box(a=1), Box(a=2)),
    "slots": (Slots(1), Slots(2)),
    "set": ({1, 2}, {1, 3}),
    "queue": (deque([1, 2]), deque([1, 3])),
    "counter": (Counter("ab"), Counter("aab")),
    "generator of numbers": (np.random.default_rng(1), np.random.default_rng(2)),
    "which is shared": ([[1], [1]], [[1]] * 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_state_that_moves_has_another_fingerprint(name: str) -> None:
    (one, opaque), (other, _) = (fingerprint(Box(state_=state)) for state in PAIRS[name])
    assert one != other and not opaque
    assert fingerprint(Box(state_=PAIRS[name][0]))[0] == one


def test_what_does_not_matter_does_not_move_it() -> None:
    keys = Box(a={"x": 1, "y": 2}), Box(a={"y": 2, "x": 1})
    assert fingerprint(keys[0]) == fingerprint(keys[1])
    told = Box(a=1, state=lambda: {"cache": array(1)}), Box(a=2, state=lambda: {"cache": array(1)})
    assert fingerprint(told[0]) == fingerprint(told[1])
    loop = Box()
    loop.itself = loop
    assert fingerprint(loop)[1] == ""


def test_what_cannot_be_read_is_named() -> None:
    assert fingerprint(Box(a=(i for i in range(3))))[1] == "an object of type generator"
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    assert fingerprint(Box(a=deep))[1] == "what is nested too deeply"


def test_tensors_are_read() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        one, other = (fingerprint(Box(a=torch.tensor([n], dtype=dtype))) for n in (1, 2))
        assert one != other and not one[1]


class Watching:
    """What the driver tells of the phase."""

    phase = ""


def test_answers_come_back_as_they_were_given() -> None:
    class Module:
        def start(self) -> Box:
            return Box(seen=0)

        def score(self, scorer: Box, tokens: np.ndarray, ask: frozenset[int]) -> Any:
            yield 1, [0.5, 1.5], {2: np.log([0.25, 0.75])}
            scorer.seen += 1
            yield 3, np.float32([2.5]), None, {3: [1.0, 1.5]}

    asked = {"tokens": [1, 0, 1, 0], "ask": [2], "states": True}
    file = io.BytesIO()
    write(file, *play(Module(), asked, Watching()))  # type: ignore[arg-type]
    file.seek(0)
    stream = Play(kind="text", tokens=np.array(asked["tokens"], np.int32))
    head = _head(file)
    assert head is not None
    answer = _answer(file, head, stream)
    assert answer.nats[1:].tolist() == [0.5, 1.5, 2.5] and answer.blocks == ((1, 2), (3, 1))
    assert answer.log_probs[2].tolist() == np.log([0.25, 0.75]).tolist()
    assert answer.byte_nats[3].tolist() == [1.0, 1.5] and answer.adapts and not answer.error


def test_an_answer_that_lies_about_itself_is_an_error() -> None:
    stream = Play(kind="text", tokens=np.zeros(9, np.int32))
    fine = {"blocks": [[1, 2]], "states": [""], "asked": [[1, 1]], "bytes": [], "error": ""}
    fine |= {"opaque": "", "floats": 3}
    data = np.arange(3.0).tobytes()
    assert not _answer(io.BytesIO(data), fine, stream).error
    for change in (
        {"floats": -1},
        {"floats": 1 << 40},
        {"blocks": [[1, 20]]},
        {"blocks": [[-3, 2]]},
        {"blocks": [[1]]},
        {"blocks": 3},
        {"states": []},
        {"asked": [[1, 9]]},
        {"asked": [["x", 1]]},
        {"bytes": [[1, -1]]},
    ):
        assert "an answer that is none" in _answer(io.BytesIO(data), fine | change, stream).error
    assert "an answer that is none" in _answer(io.BytesIO(), fine, stream).error
    for bad in (b"", b"\xff" * 30, (5).to_bytes(8, "little") + b"[1,2]", b"\1" + bytes(7) + b"{"):
        assert _head(io.BytesIO(bad)) is None
