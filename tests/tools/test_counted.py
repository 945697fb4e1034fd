"""What is kept of the bundles that were made: found again by all that they are made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.train.recipe import with_changes
from core.train.recipes import smoke
from tools.bundling import counted as module
from tools.bundling.counted import counted


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return 12_345


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Maker()


def test_it_is_made_once_for_the_same_recipe_and_code(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert counted(smoke(), "text", make) == 12_345
    assert make.made == 1
    counted(smoke(), "bytes", make)
    counted(with_changes(smoke(), ["arch.num_layers=5"]), "text", make)
    assert make.made == 3
    monkeypatch.setattr(module, "_code", lambda: "another")
    counted(smoke(), "text", make)
    assert make.made == 4


def test_the_code_is_all_that_a_bundle_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = module._code.__wrapped__(), Path.read_bytes
    for changes in ("core/score/bpb.py", "backend_torch/muon.py", "tools/bundling/fold.py"):
        with monkeypatch.context() as patch:
            end = Path(changes)
            patch.setattr(
                Path,
                "read_bytes",
                lambda path, end=end: read(path) + b"#" * (path.match(f"*/{end}")),
            )
            assert module._code.__wrapped__() != before, changes
    assert module._code.__wrapped__() == before


def test_what_is_broken_is_made_anew(make: Maker, tmp_path: Path) -> None:
    counted(smoke(), "text", make)
    (kept,) = tmp_path.glob("golf/code_bytes/*/*")
    kept.write_text("12x")
    assert counted(smoke(), "text", make) == 12_345 and make.made == 2
    assert kept.read_text() == "12345"


def test_a_home_that_cannot_be_written_costs_nothing_else(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "golf").write_text("a file where a folder should be")
    assert [counted(smoke(), "text", make) for _ in range(2)] == [12_345] * 2
    assert make.made == 2


def test_old_code_is_forgotten(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        monkeypatch.setattr(module, "_code", lambda number=number: f"code{number}")
        counted(smoke(), "text", make)
    assert len(list(tmp_path.glob("golf/code_bytes/*"))) == module.VERSIONS_KEPT
