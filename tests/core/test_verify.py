"""Every damage has its finding, all of them at once, and whole shards have none."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from core.data.export import retokenize, tokenize
from core.data.findings import RULES
from core.data.shards import HEADER_BYTES, ShardWriter, open_sidecar, open_split
from core.data.verify import bytes_to_read, verify
from tests.core.tiny_models import CORPUS, KEEP, tiny, without_marker

DOCUMENTS = ["the  cat", "   ", "", *(f"{text} {i}" for i, text in enumerate(CORPUS))]


@pytest.fixture
def folder(tmp_path):
    tokenize(DOCUMENTS, tiny(), tmp_path / "data", val_docs=9, shard_tokens=150)
    return tmp_path / "data"


def _failed(folder, tokenizer=None):
    return {f.rule for f in verify(folder, tokenizer or tiny()) if f.status == "FAIL"}


def _rewrite(folder, prefix, tokens):
    """A split anew, in one shard, and no manifest to tell."""
    for path in folder.glob(f"{prefix}_0*"):
        path.unlink()
    (folder / "manifest.json").unlink(missing_ok=True)
    with ShardWriter(folder, prefix) as writer:
        writer.write(tokens)


def _tokens(folder, split):
    found = open_split(folder, split)
    return found.slice(0, len(found))


def _change(path, at, value):
    data = bytearray(path.read_bytes())
    data[at] ^= value
    path.write_bytes(data)


def test_whole_shards_pass_every_rule(folder):
    findings = verify(folder, tiny())
    assert {f.status for f in findings} == {"PASS"}, findings
    assert {f.rule for f in findings} == set(RULES)
    for finding in findings:
        fields = asdict(finding)
        assert set(fields) == {"rule", "status", "subject", "evidence", "source"}
        assert all(isinstance(value, str) and value for value in fields.values())


def _truncate(folder):
    path = folder / "fineweb_train_000001.bin"
    path.write_bytes(path.read_bytes()[:-2])


def _foreign(folder):
    (folder / "fineweb_train_000001.bin").write_bytes(b"PK\3\4" * 500)


def _swap_token(folder):
    """Two tokens of train change places: nothing but the hash can see it."""
    path = folder / "fineweb_train_000001.bin"
    tokens = np.frombuffer(path.read_bytes()[HEADER_BYTES:], "<u2").copy()
    i = next(i for i in range(20, 100) if len({1, *tokens[i : i + 2]}) == 3)
    tokens[[i, i + 1]] = tokens[[i + 1, i]]
    path.write_bytes(path.read_bytes()[:HEADER_BYTES] + tokens.tobytes())


def _lose(folder):
    (folder / "fineweb_train_000001.bin").unlink()


def _lose_sidecar(folder):
    for path in folder.glob("fineweb_val_bytes_*"):
        path.unlink()


def _add(folder):
    """A shard of another export, whole in itself."""
    files = sorted(folder.glob("fineweb_train_*"))
    with ShardWriter(folder, "other") as writer:
        writer.write(np.full(40, 9, np.uint16))
    writer.files[0].rename(folder / f"fineweb_train_{len(files):06d}.bin")


def _leave_partial(folder):
    (folder / "fineweb_train_000009.bin.partial").write_bytes(b"")


def _heavier(folder):
    path = sorted(folder.glob("fineweb_val_bytes_*"))[0]
    _change(path, HEADER_BYTES + 2 * 3 + 1, 1)  # 256 bytes more at token 3


def _shorter_sidecar(folder):
    sidecar = open_sidecar(folder)
    assert sidecar is not None
    _rewrite(folder, "fineweb_val_bytes", sidecar.slice(0, len(sidecar) - 1))


def _heavy_bos(folder):
    sidecar = open_sidecar(folder)
    assert sidecar is not None
    moved = sidecar.slice(0, len(sidecar)).copy()
    moved[0], moved[1] = moved[1], 0
    _rewrite(folder, "fineweb_val_bytes", moved)


def _leak(folder):
    """A validation document in the middle of train."""
    val, train = _tokens(folder, "val"), _tokens(folder, "train")
    starts = np.flatnonzero(val == tiny().bos_id)
    document = val[starts[4] : starts[5]]
    middle = np.flatnonzero(train == tiny().bos_id)[7]
    _rewrite(folder, "fineweb_train", np.insert(train, middle, document))


def _beyond(folder):
    tokens = _tokens(folder, "train").copy()
    tokens[30] = 380
    _rewrite(folder, "fineweb_train", tokens)


def _headless(folder):
    _rewrite(folder, "fineweb_train", _tokens(folder, "train")[1:])


def _no_text(folder):
    """A lone byte piece, which decodes to U+FFFD."""
    tokens = _tokens(folder, "train").copy()
    kinds = [piece.kind for piece in tiny().pieces()]
    tokens[30] = kinds.index("byte") + 255
    _rewrite(folder, "fineweb_train", tokens)


def _miscounted(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["documents"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _broken_manifest(folder):
    (folder / "manifest.json").write_text("{")


DAMAGE = [  # what is done, and all the rules that then fail
    (_truncate, {"header", "sequence", "hash"}),
    (_foreign, {"header", "sequence", "hash"}),
    (_swap_token, {"hash"}),
    (_lose, {"sequence", "hash", "counts"}),
    (_lose_sidecar, {"hash", "sidecar"}),
    (_add, {"sequence", "hash", "counts"}),
    (_leave_partial, {"header"}),
    (_heavier, {"hash", "sidecar"}),
    (_shorter_sidecar, {"sidecar"}),
    (_heavy_bos, {"sidecar"}),
    (_leak, {"overlap"}),
    (_beyond, {"vocabulary"}),
    (_headless, {"starts with BOS"}),
    (_no_text, {"decoding"}),
    (_miscounted, {"counts"}),
    (_broken_manifest, {"manifest"}),
]


@pytest.mark.parametrize(
    ("damage", "rules"), DAMAGE, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_damage_fails_its_rules_and_no_others(folder, damage, rules):
    damage(folder)
    assert _failed(folder) == rules


def test_all_problems_are_told_at_once(folder):
    for damage in (_leave_partial, _heavier, _truncate, _miscounted):
        damage(folder)
    findings = verify(folder, tiny())
    failed = [f for f in findings if f.status == "FAIL"]
    assert {f.rule for f in failed} >= {"header", "hash", "sidecar"}
    assert len([f for f in failed if f.rule == "header"]) == 2
    assert {f.status for f in findings if f.rule == "overlap"} == {"UNDECIDED"}


def test_an_overlap_names_the_documents(folder):
    _leak(folder)
    [finding] = [f for f in verify(folder, tiny()) if f.rule == "overlap"]
    assert finding.evidence == "1 of 9 val documents; train document 7 is val document 4"


def test_documents_without_tokens_are_in_no_overlap(tmp_path):
    tokenize(["", "the cat", "", "of"], tiny(), tmp_path / "data", val_docs=2)
    assert _failed(tmp_path / "data") == set()


def test_a_wrong_tokenizer_fails(folder):
    assert "tokenizer" in _failed(folder, tiny(**KEEP))  # of the same name and size
    assert "vocabulary" in _failed(folder, tiny(vocab_size=340))
    assert "byte table" in _failed(folder, without_marker())


def test_without_a_manifest_hashes_and_counts_are_undecided(folder):
    for content in (None, '{"version": "10B"}', '{"files": {}, "splits": {"val": 1}}'):
        (folder / "manifest.json").unlink(missing_ok=True)
        if content:
            (folder / "manifest.json").write_text(content)
        findings = verify(folder, tiny())
        statuses = {f.rule: f.status for f in findings}
        assert statuses["manifest"] == "UNDECIDED"
        assert not {"hash", "counts", "tokenizer"} & set(statuses)
        assert [f.status for f in findings if f.rule == "sidecar"] == ["PASS", "UNDECIDED", "PASS"]
        assert "FAIL" not in statuses.values()


def test_decoded_text_needs_no_sidecar(folder, tmp_path):
    retokenize(folder, tiny(), tiny(vocab_size=340), tmp_path / "new")
    findings = verify(tmp_path / "new", tiny(vocab_size=340))
    assert {f.rule: f.status for f in findings if f.status != "PASS"} == {"sidecar": "UNDECIDED"}


def test_transformed_text_needs_one(tmp_path):
    marked = tiny(user_defined_symbols="\ue001")
    tokenize(DOCUMENTS, marked, tmp_path / "data", val_docs=9)
    assert _failed(tmp_path / "data", marked) == set()
    _lose_sidecar(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").unlink()
    assert _failed(tmp_path / "data", marked) == {"sidecar", "byte table"}


def test_a_shard_alone(folder):
    findings = verify(folder / "fineweb_train_000000.bin", tiny())
    statuses = {f.rule: f.status for f in findings}
    assert statuses.pop("overlap") == statuses.pop("manifest") == "UNDECIDED"
    assert statuses == dict.fromkeys(
        ["header", "vocabulary", "encoding", "starts with BOS", "byte table", "decoding"], "PASS"
    )
    with pytest.raises(ValueError, match="a byte sidecar"):
        verify(folder / "fineweb_val_bytes_000000.bin", tiny())


def test_nothing_to_verify(tmp_path):
    assert _failed(tmp_path) == {"header"}
    with pytest.raises(ValueError, match="no such shard or folder"):
        verify(tmp_path / "none", tiny())


def test_long_train_data_is_decoded_at_its_beginning(folder):
    findings = verify(folder, tiny(), decode_tokens=100)
    [train] = [f for f in findings if f.rule == "decoding" and f.subject == "train"]
    assert (train.status, train.evidence.split(" tokens")[0].split(" of ")[0]) == ("PASS", "100")


def test_progress_hears_all_bytes(folder):
    heard = []
    verify(folder, tiny(), progress=heard.append)
    headers = len(list(folder.glob("fineweb_[tv]*_0*"))) * HEADER_BYTES
    assert bytes_to_read(folder) - headers <= sum(heard) <= bytes_to_read(folder)
