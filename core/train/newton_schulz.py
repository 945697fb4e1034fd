"""Coefficients of the Newton-Schulz iteration X <- aX + (bA + cA^2)X with A = XX^T.

Both engines run the same rows; a table is one (a, b, c) per step, its last row repeated.
"""

from __future__ import annotations

from typing import Literal

Table = tuple[tuple[float, float, float], ...]
NSTable = Literal["quintic", "polar"]

TABLES: dict[NSTable, Table] = {
    # Jordan et al. 2024 (Muon): singular values of 0.01 and more land in about [0.68, 1.13].
    "quintic": ((3.4445, -4.7750, 2.0315),),
    # Amsel et al. 2025 (Polar Express): [0.001, 1] lands in about [0.86, 1.14] after five.
    "polar": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
}
NORM_EPS = 1e-7  # added to the Frobenius norm before the first step
ROW_EPS = 1e-7  # the least norm of a row, where rows are normalised


def coefficients(table: NSTable, steps: int) -> Table:
    """One (a, b, c) for each of `steps` steps."""
    rows = TABLES[table]
    return tuple(rows[min(step, len(rows) - 1)] for step in range(steps))
