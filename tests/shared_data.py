"""Real text and tokenizers, in the folder `shared` beside the repository where there is one."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
OFFICIAL = "data/tokenizers/fineweb_1024_bpe.model"
CASEOPS = "data/tokenizers/fineweb_8192_bpe_lossless_caps_caseops_v1_reserved.model"
WEBGOV = "data/webgov_test.jsonl.gz"
FINEWEB = "data/fineweb_test.jsonl.gz"


def shared(name: str) -> Path:
    """The path of a shared file; the calling test is skipped, with the reason, without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no real data: ../shared/{name} is not beside the repository")
    return path
