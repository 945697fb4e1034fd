"""Coefficients of the Newton-Schulz iteration X <- aX + (bA + cA^2)X with A = XX^T.

Both engines run the same rows; a table is one (a, b, c) per step, its last row repeated.
"""

from __future__ import annotations

from typing import Literal

Table = tuple[tuple[float, float, float], ...]
NSTable = Literal["quintic"]

TABLES: dict[NSTable, Table] = {
    # Jordan et al. 2024 (Muon): singular values of 0.01 and more land in about [0.68, 1.13].
    "quintic": ((3.4445, -4.7750, 2.0315),),
}
NORM_EPS = 1e-7  # added to the Frobenius norm before the first step


def coefficients(table: NSTable, steps: int) -> Table:
    """One (a, b, c) for each of `steps` steps."""
    rows = TABLES[table]
    return tuple(rows[min(step, len(rows) - 1)] for step in range(steps))
