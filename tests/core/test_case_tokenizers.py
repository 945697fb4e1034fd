"""Bytes and transformed case: nothing is lost, every byte of the text is counted once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.byte_tokenizer import ByteTokenizer, canonical_file
from core.data.case import CONTROLS, CaseDecoder, CaseEncoder, decode_case, encode_case
from core.data.case_tokenizer import CaseTokenizer
from core.data.lossy import require_text, why_lossy
from core.data.token_bytes import byte_table
from core.data.tokenizer import open_tokenizer, tokenizer_of
from tests.core.tiny_models import tiny

CAPITAL, UPPER, LATER, ESCAPE = CONTROLS
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MIXED = st.text(st.sampled_from(["a", "b", "A", "B", "é", "É", " ", *CONTROLS]), max_size=40)
KEEP = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "user_defined_symbols": ",".join(CONTROLS),
}

DEFINED = {  # the definition, case by case
    "the": "the",
    "The": CAPITAL + "the",
    "A": CAPITAL + "a",
    "NASA": UPPER + "nasa",
    "iPhone": f"i{LATER}phone",
    "McDonald": f"{CAPITAL}mc{LATER}donald",
    "a B": f"a {CAPITAL}b",
    "É": "É",
    "x" + UPPER: "x" + ESCAPE + UPPER,
    ESCAPE: ESCAPE + ESCAPE,
}


@pytest.mark.parametrize("text", DEFINED)
def test_the_definition(text: str) -> None:
    assert encode_case(text) == DEFINED[text]
    assert decode_case(DEFINED[text]) == text


@given(text=TEXTS | MIXED)
def test_any_text_comes_back(text: str) -> None:
    encoded = encode_case(text)
    assert decode_case(encoded) == text
    assert not any("A" <= letter <= "Z" for letter in encoded)


@given(parts=st.lists(TEXTS | MIXED, max_size=6))
def test_a_stream_is_the_same_whatever_its_chunks(parts: list[str]) -> None:
    text = "".join(parts)
    encoder, decoder = CaseEncoder(), CaseDecoder()
    encoded = "".join(encoder.feed(part) for part in parts) + encoder.finish()
    assert encoded == encode_case(text)
    cut = [encoded[i : i + 3] for i in range(0, len(encoded), 3)]
    assert "".join(decoder.feed(part) for part in cut) + decoder.finish() == text


@given(text=MIXED | TEXTS)
def test_tokens_of_transformed_text_count_the_texts_own_bytes(text: str) -> None:
    tokenizer = tokenizer_of("case", tiny(**KEEP).model)
    assert isinstance(tokenizer, CaseTokenizer)
    ids, counts = tokenizer.encode(text)
    assert int(counts.sum()) == len(text.encode()) and (counts >= 0).all()
    assert np.array_equal(ids, tokenizer.encode_ids(text))
    assert tokenizer.decode(ids) == text
    assert byte_table(tokenizer).needs_sidecar


@given(text=TEXTS)
def test_bytes(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids, counts = tokenizer.encode(text)
    assert ids.tolist() == [4 + byte for byte in text.encode()]
    assert int(counts.sum()) == len(text.encode()) and tokenizer.decode(ids) == text


def test_byte260_needs_no_file_and_a_file_must_be_its() -> None:
    found = open_tokenizer("byte260")
    assert (found.vocab_size, found.bos_id, found.unk_id) == (260, 1, 3)
    assert tokenizer_of("x", canonical_file()).sha256 == found.sha256
    other = json.loads(canonical_file())
    other["vocab_size"] = 300
    with pytest.raises(ValueError, match="300"):
        tokenizer_of("x", json.dumps(other).encode())


def test_a_lossy_tokenizer_is_refused_unless_that_is_allowed() -> None:
    assert why_lossy(tiny()) == "" == why_lossy(ByteTokenizer())
    for settings, why in (
        ({"byte_fallback": False}, "no byte fallback"),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, "come back as others"),
    ):
        with pytest.raises(ValueError, match=f"is lossy: .*{why}"):
            require_text(tiny(**settings), allow_lossy=False)
        assert why in require_text(tiny(**settings), allow_lossy=True)
