"""Ledger: 16,000,000 bytes, code and model together, and who spent what."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from core.artifact.codecs import encode
from core.artifact.container import inspect

CAP_BYTES = 16_000_000  # decimal, of code plus model
_CODE = "code"
_ENTRY = "backend_torch/loop.py"  # what a torch run begins with


@dataclass(frozen=True)
class Ledger:
    """Bytes by part: the code, then the parts of the model."""

    rows: tuple[tuple[str, int], ...]

    @property
    def code_bytes(self) -> int:
        return sum(size for part, size in self.rows if part == _CODE)

    @property
    def model_bytes(self) -> int:
        return self.artifact_bytes - self.code_bytes

    @property
    def artifact_bytes(self) -> int:
        return sum(size for _, size in self.rows)

    @property
    def margin_bytes(self) -> int:
        """What is left under the cap; negative when over it."""
        return CAP_BYTES - self.artifact_bytes

    @property
    def fits(self) -> bool:
        return self.margin_bytes >= 0


def ledger(model: bytes, code_bytes: int) -> Ledger:
    """The ledger of a model file beside code of this size."""
    if code_bytes < 0:
        raise ValueError(f"ledger: code_bytes {code_bytes} must not be negative")
    parts: dict[str, int] = inspect(model)["bytes"]
    return Ledger(((_CODE, code_bytes), *parts.items()))


def require_fits(spent: Ledger) -> None:
    """Raise ValueError unless code plus model are within the cap."""
    if spent.fits:
        return
    raise ValueError(
        f"artifact_bytes {spent.artifact_bytes:,} (code {spent.code_bytes:,} + "
        f"model {spent.model_bytes:,}) exceed the cap {CAP_BYTES:,} by {-spent.margin_bytes:,}; "
        f"make the model smaller (num_layers, model_dim, mlp_dim), quantize more of it "
        f"(quant.keep_below) or try quant.codec=lzma"
    )


def unbundled_code_bytes(root: Path) -> int:
    """lzma size of the source files under `root` that a torch run imports, names included."""
    if not (root / _ENTRY).is_file():
        raise ValueError(f"{root}: no source files, expected {_ENTRY} and what it imports")
    paths = imported_files(root / _ENTRY, root)
    names = sorted(path.relative_to(root).as_posix() for path in paths)
    files = [f"# {name}\n".encode() + (root / name).read_bytes() for name in names]
    return len(encode("lzma", b"".join(files)))


def imported_files(entry: Path, root: Path) -> set[Path]:
    """`entry` and all files under `root` that it imports, directly or not, read from the code."""
    found, waiting = set[Path](), [entry]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path, root)
    return found


def _imports(path: Path, root: Path) -> list[Path]:
    """Modules that a file names, and the packages they lie in."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [root.joinpath(*name.split(".")) for name in names]
    files = [place.with_suffix(".py") for place in places]
    files += [folder / "__init__.py" for place in places for folder in (place, *place.parents)]
    return [file for file in files if file.is_file() and root in file.parent.parents]
