"""Ledger: 16,000,000 bytes, code and model together, and who spent what."""

from __future__ import annotations

from dataclasses import dataclass

from core.artifact.container import inspect

CAP_BYTES = 16_000_000  # decimal, of code plus model
_CODE = "code"


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
