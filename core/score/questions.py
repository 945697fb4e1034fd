"""The questions that nobody has decided: no report says that one of them passes."""

from __future__ import annotations

from core.score.ruling import Ruling

QUESTIONS = (
    Ruling(
        id="Q1",
        what="a vector optimised on the context alone, before the tokens that it scores",
        source="issue 1336",
        status="open",
        rules=("context alone",),
        about=("scorer",),
    ),
    Ruling(
        id="Q2",
        what="whether a tokenizer may fold case or characters",
        source="issue 1604",
        status="open",
        rules=("lossless", "B8"),
        about=("data",),
    ),
    Ruling(
        id="Q3",
        what="learned constants written into the code",
        source="pull request 1779",
        status="open",
        about=("scorer",),
    ),
    Ruling(
        id="Q4",
        what="whether the time of quantization counts: of it only Hessians were ruled on",
        source="pull request 1950",
        status="open",
        rules=("L13",),
        about=("logs",),
    ),
    Ruling(
        id="Q5",
        what="whether documents must be apart where a score is causal without it",
        source="issue 1988",
        status="open",
        rules=("isolated documents",),
        about=("scorer",),
    ),
    Ruling(
        id="Q6",
        what="whether the bytes of a tokenizer's file count",
        source="issue 43",
        status="open",
        rules=("cap",),
        about=("data", "logs"),
    ),
    Ruling(
        id="Q7",
        what="several candidates filed and the winners kept",
        source="pull request 2146",
        status="open",
        about=("logs",),
    ),
    Ruling(
        id="Q8",
        what="training on validation text in the first week; the README forbids it since",
        source="issues 44 and 67",
        status="open",
        about=("logs",),
    ),
)
