"""16,000,000 bytes, counted to the last one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.artifact.container import Artifact, write
from core.artifact.ledger import (
    CAP_BYTES,
    Ledger,
    imported_files,
    ledger,
    require_fits,
    unbundled_code_bytes,
)
from core.artifact.quant import Packed


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


def test_code_is_what_a_torch_run_imports(tmp_path: Path) -> None:
    sources = {
        "backend_torch/loop.py": "import torch\nfrom core.arch.b import x\nfrom core.d import e\n",
        "core/__init__.py": "",
        "core/arch/__init__.py": '"""The room."""\n',
        "core/arch/b.py": "def f():\n    import core.c\n",
        "core/c.py": "import numpy as np\nfrom core.arch.b import f\n",
        "core/d/e.py": "x = 1\n",
    }
    others = ("tools/d.py", "backend_mlx/e.py", "core/verify.py", "train_mlx.py", "core/notes.txt")
    for name, text in {**sources, **dict.fromkeys(others, "x = 1\n" * 50)}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = imported_files(tmp_path / "backend_torch/loop.py", tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == set(sources)
    before = unbundled_code_bytes(tmp_path)
    (tmp_path / "core/verify.py").write_text("import math\n" * 99)
    assert unbundled_code_bytes(tmp_path) == before
    (tmp_path / "core/c.py").write_text("import numpy as np\nfrom core import verify\n")
    assert unbundled_code_bytes(tmp_path) > before


def test_code_of_this_project() -> None:
    size = unbundled_code_bytes(Path(__file__).parents[2])
    assert 1_000 < size < 200_000


def test_nothing_to_count(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no source files"):
        unbundled_code_bytes(tmp_path)
    with pytest.raises(ValueError, match="code_bytes -1"):
        ledger(model(), -1)
