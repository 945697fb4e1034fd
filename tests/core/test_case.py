"""The case transform: its definition, both directions, any chunks, and whose the bytes are."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.data.case import (
    CONTROLS,
    CaseDecoder,
    CaseEncoder,
    decode_case,
    encode_case,
    original_ends,
)
from core.data.documents import read_documents
from tests.shared_data import FINEWEB, WEBGOV, shared

C, U, L, E = CONTROLS
DEFINITION = [  # text, transformed
    ("", ""),
    ("the cat", "the cat"),
    ("The cat", f"{C}the cat"),
    ("I am A1", f"{C}i am {C}a1"),
    ("NASA, UN2", f"{U}nasa, {U}un2"),
    ("McDonald", f"{C}mc{L}donald"),
    ("iPhone", f"i{L}phone"),
    ("aB", f"a{L}b"),
    ("ABc", f"{C}a{L}bc"),
    ("aBC", f"a{L}b{L}c"),
    ("AbC", f"{C}ab{L}c"),
    ("ÉCOLE Éa İI", f"É{U}cole Éa İ{C}i"),
    ("don'T", f"don'{C}t"),
    ("\ue001", f"{E}\ue001"),
    ("A\ue002B", f"{C}a{E}\ue002{C}b"),
    ("\ue004\ue004A", f"{E}\ue004{E}\ue004{C}a"),
    ("\ue000\ue005\U000f0000", "\ue000\ue005\U000f0000"),
]
LETTERS = st.sampled_from([*"aAbBzZ", *CONTROLS, " ", "é", "É", "\u2581", "\r", "😀", "\ufeff"])
TEXTS = st.one_of(st.text(LETTERS), st.text(st.characters(exclude_categories=["Cs"])))


@pytest.mark.parametrize(("text", "transformed"), DEFINITION)
def test_the_definition(text, transformed):
    assert encode_case(text) == transformed
    assert decode_case(transformed) == text


def by_hand(text):
    """The definition, a character at a time."""
    out, run = "", ""
    for letter in [*text, ""]:
        if letter.isascii() and letter.isalpha():
            run += letter
            continue
        if len(run) > 1 and run == run.upper():
            out += U + run.lower()
        else:
            marks = [C] + [L] * len(run)
            out += "".join(
                m * (a != a.lower()) + a.lower() for m, a in zip(marks, run, strict=False)
            )
        out, run = out + E * (letter in CONTROLS and letter != "") + letter, ""
    return out


@given(TEXTS)
@settings(max_examples=500, deadline=None)
def test_any_text_comes_back(text):
    encoded = encode_case(text)
    assert encoded == by_hand(text)
    assert decode_case(encoded) == text
    assert not any("A" <= letter <= "Z" for letter in encoded)


def in_chunks(text, cuts, coder):
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return "".join(coder.feed(text[a:b]) for a, b in pairwise(bounds)) + coder.finish()


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=500, deadline=None)
@example("ABc", [1, 2])
@example("A", [1])
@example("Ab CdE", [1, 2, 4, 5])
def test_chunks_change_nothing(text, cuts):
    encoded = encode_case(text)
    assert in_chunks(text, cuts, CaseEncoder()) == encoded
    assert in_chunks(encoded, cuts, CaseDecoder()) == text
    assert in_chunks(text, cuts, CaseDecoder()) == decode_case(text)  # no transformed text


def test_a_coder_can_be_used_again():
    encoder, decoder = CaseEncoder(), CaseDecoder()
    for text in ("AB", "ab", "Cd"):
        assert encoder.feed(text) + encoder.finish() == encode_case(text)
        assert decoder.feed(E) + decoder.finish() == ""


def test_only_the_open_run_is_held():
    """The memory of a stream: capitals that a lower-case letter could still follow."""
    encoder = CaseEncoder()
    assert encoder.feed("a" * 10**6 + "B") == "a" * 10**6 + f"{L}b"
    assert encoder.feed("Cd" * 10**6) == f"{L}cd" * 10**6
    assert encoder.feed(" NA") == " "
    assert encoder.feed("SA.") == f"{U}nasa."


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_every_byte_has_its_place(text):
    """Of each character, at its end in the transformed text: the bytes of the text so far."""
    encoded = encode_case(text)
    ends = np.cumsum([len(letter.encode()) for letter in encoded], dtype=np.int64)
    found = np.diff(original_ends(encoded, ends), prepend=0)
    decoded, expected = CaseDecoder(), []
    for letter in encoded:
        expected.append(len(decoded.feed(letter).encode()))
    assert found.tolist() == expected
    assert found.sum() == len(text.encode())


@pytest.mark.parametrize("name", [WEBGOV, FINEWEB])
def test_real_documents_come_back(name):
    for text in read_documents([shared(name)]):
        encoded = encode_case(text)
        assert decode_case(encoded) == text
        ends = np.array([len(encoded.encode())], np.int64)
        assert original_ends(encoded, ends).tolist() == [len(text.encode())]
