"""A small Hub for those tests that ask for it: the task's repository, and the way to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.data.export import tokenize
from tests.conftest import Text
from tests.tools.fake_hub import Hub, serving
from tests.tools.published_data import FOLDER, MODEL, REPO


@pytest.fixture(scope="module")
def published(text: Text, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository as the task's: everything below datasets/."""
    shards = tmp_path_factory.mktemp("published") / "shards"
    tokenize(text.documents, text.tokenizer, shards, val_docs=6, shard_tokens=12_000)
    files = {f"{FOLDER}/{path.name}": path.read_bytes() for path in shards.glob("*.bin")}
    assert sum("train" in name for name in files) >= 4
    files[MODEL] = text.model.read_bytes()
    files["tokenizers/fineweb_384_bpe.vocab"] = b"<unk>\t0\n"
    files["docs_selected.jsonl"] = b'{"text": "one"}\n'
    files["manifest.json"] = json.dumps(
        {
            "tokenizers": [
                {
                    "name": "bpe384",
                    "model_path": MODEL,
                    "vocab_path": "tokenizers/fineweb_384_bpe.vocab",
                }
            ],
            "datasets": [
                {"name": "fineweb10B_sp384", "tokenizer_name": "bpe384", "vocab_size": 384},
                {"name": "fineweb10B_byte260", "tokenizer_name": "byte"},
            ],
        }
    ).encode()
    return {f"datasets/{name}": content for name, content in files.items()}


@pytest.fixture
def hub(
    published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Hub]:
    """Serving, the way of this process to it, and an empty folder to work in."""
    import huggingface_hub.constants as hub_constants
    from huggingface_hub import file_download

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("MATCHED_FINEWEB_REPO_ID", "MATCHED_FINEWEB_REMOTE_ROOT_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    with serving(Hub(REPO, dict(published))) as served:
        url = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub_constants, "ENDPOINT", served.endpoint)
        for module in (hub_constants, file_download):  # older versions have it in both
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", url, raising=False)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        yield served


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
