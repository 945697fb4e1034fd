"""Which tokenizers lose text, and that none of them is scored without saying so."""

from dataclasses import replace

import numpy as np
import pytest

from core.data.byte_tokenizer import ByteTokenizer
from core.data.case import CONTROLS
from core.data.case_tokenizer import CaseTokenizer
from core.data.export import tokenize
from core.data.lossy import require_text, why_lossy
from core.data.tokenizer import open_tokenizer, train_tokenizer
from core.score.scoring import open_validation, score
from core.train.events import log_line, score_fields
from tests.core.tiny_models import KEEP, tiny
from tests.shared_data import CASEOPS, OFFICIAL, shared

FOLD = {"normalization_rule_name": "nmt_nfkc_cf"}


def cased(**settings):
    return CaseTokenizer(tiny(user_defined_symbols=",".join(CONTROLS), **settings))


KINDS = [
    (tiny, {}, ""),
    (tiny, KEEP, ""),
    (tiny, {"add_dummy_prefix": True}, ""),
    (tiny, {"byte_fallback": False}, "no byte fallback: 256 of 256"),
    (tiny, FOLD, "characters come back as others: 'A' -> 'a'"),
    (ByteTokenizer, {}, ""),
    (cased, {}, ""),
    (cased, FOLD, "others: 'À' -> 'à'"),
]


@pytest.mark.parametrize(("make", "settings", "why"), KINDS)
def test_what_is_lossy(make, settings, why):
    tokenizer = make(**settings)
    found = why_lossy(tokenizer)
    assert why in found and bool(why) == bool(found)
    if why:
        with pytest.raises(ValueError, match="is lossy: .*--allow-lossy.*score.allow_lossy=true"):
            require_text(tokenizer, False)
        assert require_text(tokenizer, True) == found
    else:
        assert require_text(tokenizer, False) == ""


@pytest.mark.parametrize("name", [OFFICIAL, CASEOPS])
def test_the_published_models_are_not(name):
    assert why_lossy(open_tokenizer(shared(name))) == ""


@pytest.mark.parametrize("settings", [{"byte_fallback": False}, FOLD], ids=str)
def test_a_lossy_tokenizer_is_scored_if_that_is_said(text, tmp_path, settings):
    model = tmp_path / "lossy.model"
    tokenizer = train_tokenizer(
        text.documents, 300 if "byte" in str(settings) else 384, model, **settings
    )
    documents = ["日本 the cat", *text.documents]
    tokenize(documents, tokenizer, tmp_path / "shards", val_docs=6)
    data = replace(text.data, path=str(tmp_path / "shards"), tokenizer=str(model))
    with pytest.raises(ValueError, match="lossy is lossy"):
        open_validation(data, tokenizer.vocab_size)
    validation = open_validation(data, tokenizer.vocab_size, allow_lossy=True)
    assert validation.lossy == why_lossy(tokenizer)

    def nats_of(x, y):
        return np.ones(x.shape, np.float32)

    fields = score_fields(score(nats_of, validation, 64, 8), validation)
    assert fields["lossy"] == validation.lossy
    more = {"label": "final", "eval_ms": 1.0, "step": 1, "steps": 2, "train_ms": 1.0}
    for kind in ("val", "scored"):
        line = log_line(kind, {**fields, **more, "step_avg_ms": 1.0, "artifact_bytes": 9})
        assert line is not None and ' lossy:"' in line
        plain = log_line(
            kind, {**fields, **more, "step_avg_ms": 1.0, "artifact_bytes": 9, "lossy": None}
        )
        assert plain is not None and "lossy" not in plain


def test_others_are_called_nothing(text):
    validation = open_validation(text.data, text.tokenizer.vocab_size, allow_lossy=True)
    assert validation.lossy == ""


def test_unknown_text_of_a_tokenizer_that_has_none_is_refused_all_the_same(text, tmp_path):
    """--allow-lossy is for tokenizers, not for damaged shards."""
    tokenize(text.documents, text.tokenizer, tmp_path / "shards", val_docs=6)
    (tmp_path / "shards" / "manifest.json").unlink()
    path = tmp_path / "shards" / "fineweb_val_000000.bin"
    content = bytearray(path.read_bytes())
    content[1024 + 2 * 9 : 1024 + 2 * 10] = text.tokenizer.unk_id.to_bytes(2, "little")
    path.write_bytes(content)
    data = replace(text.data, path=str(tmp_path / "shards"))
    for allow in (False, True):
        with pytest.raises(ValueError, match="holds unknown text"):
            open_validation(data, text.tokenizer.vocab_size, allow_lossy=allow)
