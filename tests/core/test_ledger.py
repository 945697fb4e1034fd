"""16,000,000 bytes, counted to the last one."""

from __future__ import annotations

import numpy as np
import pytest

from core.artifact.container import Artifact, write
from core.artifact.ledger import (
    CAP_BYTES,
    Ledger,
    ledger,
    require_fits,
)
from core.artifact.packed import Packed


def model() -> bytes:
    levels = np.arange(24, dtype=np.int8).reshape(4, 6)
    tensors = Packed("a", (4, 6), levels, np.ones(4, np.float16)), Packed("b", (4, 6), levels)
    return write(Artifact(None, tensors))


def test_every_byte_is_counted_once() -> None:
    spent = ledger(model(), 1234)
    assert [part for part, _ in spent.rows] == ["code", "header", "levels", "scales", "fp16"]
    assert spent.code_bytes == 1234 and spent.model_bytes == len(model())
    assert spent.artifact_bytes == 1234 + len(model())
    assert spent.margin_bytes == 16_000_000 - spent.artifact_bytes


@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
def test_the_cap_is_decimal_and_included(over: int, fits: bool) -> None:
    spent = ledger(model(), CAP_BYTES - len(model()) + over)
    assert spent.fits is fits and spent.margin_bytes == -over
    if fits:
        require_fits(spent)
        return
    with pytest.raises(ValueError, match=r"artifact_bytes 16,000,001 .* by 1; make the model"):
        require_fits(spent)


def test_message_names_both_sides() -> None:
    spent = Ledger((("code", 40_000), ("header", 700), ("levels", 17_000_000)))
    with pytest.raises(
        ValueError, match=r"17,040,700 \(code 40,000 \+ model 17,000,700\).*by 1,040,700"
    ):
        require_fits(spent)


def test_no_code_of_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="code_bytes -1"):
        ledger(model(), -1)
