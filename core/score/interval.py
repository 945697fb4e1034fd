"""How far the BPB of a subset may be from that of the whole split: a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCKS = 16  # of neighbouring windows, where a subset is one stretch
_T = (12.7062, 4.3027, 3.1824, 2.7764)  # 97.5 % of Student's t, 1 to 4 degrees of freedom
_Z = 1.959964


def bpb_interval(
    sums: Sequence[tuple[float, int]], sampled_frac: float, spread: bool
) -> tuple[float, float] | None:
    """The interval from (nats, bytes) of each window; None for fewer than two clusters.

    R = sum(nats) / sum(bytes) over k clusters has the standard error
    sqrt((1 - f) k / (k - 1) sum((nats_i - R bytes_i)^2)) / sum(bytes), f the sampled fraction:
    the ratio estimator's delta method (Cochran 1977, Sampling Techniques, ch. 6). The interval is
    R -+ t(k - 1) standard errors, in bits.
    The clusters of a spread are its windows, as if drawn at random: where they lie closer than
    documents are long, the interval is too wide, never too narrow. Neighbours share documents, so
    one stretch is cut into at most 16 clusters (batch means, Schmeiser 1982); its interval
    supposes that the rest of the split is like it.
    """
    if len(sums) < 2:
        return None
    nats, counts = np.array(sums, np.float64).reshape(-1, 2).T
    if not spread:
        nats, counts = _blocks(nats), _blocks(counts)
    clusters, total = len(nats), counts.sum()
    if total <= 0:
        return None
    ratio = nats.sum() / total
    squares = ((nats - ratio * counts) ** 2).sum()
    error = math.sqrt((1.0 - sampled_frac) * clusters / (clusters - 1) * squares) / total
    reach = t_quantile(clusters - 1) * error
    return (ratio - reach) / math.log(2.0), (ratio + reach) / math.log(2.0)


def t_quantile(freedom: int) -> float:
    """97.5 % of Student's t, to 0.001: a table, then the expansion of Cornish and Fisher in
    1/freedom (Abramowitz and Stegun 26.7.5).
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = _Z, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def _blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of at most BLOCKS stretches, as even as can be."""
    return np.array([part.sum() for part in np.array_split(values, min(BLOCKS, len(values)))])
