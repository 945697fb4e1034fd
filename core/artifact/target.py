"""Target: the step scale whose file is as large as it may be, and no larger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

SLACK_BYTES = 2_000  # a file may be so much smaller than it might be
_FURTHEST = 32  # octaves from where the search begins
_DIGITS = 6  # of a step scale, so that a recipe can say it
_MOST_TRIES = 60


@dataclass(eq=False)
class Sizes:
    """Files by the octave of their step scale; each is made once."""

    make: Callable[[float], bytes]
    made: dict[float, bytes | None] = field(default_factory=dict)

    def at(self, octave: float) -> tuple[float, int | None]:
        """The step scale and the file's bytes; None where no file can have such steps."""
        scale = scale_at(octave)
        if scale not in self.made:
            try:
                self.made[scale] = self.make(scale)
            except ValueError:
                if not self.made:
                    raise
                self.made[scale] = None
        file = self.made[scale]
        return scale, None if file is None else len(file)


def scale_at(octave: float) -> float:
    """2**octave in few digits."""
    return float(f"{2.0**octave:.{_DIGITS}g}")


def meet(sizes: Sizes, most_bytes: int, start: float = 1.0) -> tuple[float, bytes]:
    """A step scale and its file, of most_bytes or up to SLACK_BYTES fewer.

    Coarser steps make smaller files, by about a bit a weight an octave: the search goes outwards
    from `start` until one fits and one does not, then between them. Raises ValueError, with the
    nearest sizes, where no step scale is of such a file.
    """
    fits, over = _around(sizes, most_bytes, math.log2(start))
    for _ in range(_MOST_TRIES):
        scale, size = sizes.at(fits)
        assert size is not None and size <= most_bytes
        if most_bytes - size <= SLACK_BYTES:
            file = sizes.made[scale]
            assert file is not None
            return scale, file
        if over is None or scale_at(over) == scale:
            break
        middle = _between(sizes, fits, over, most_bytes)
        if scale_at(middle) in (scale, scale_at(over)):
            middle = (fits + over) / 2
        _, found = sizes.at(middle)
        if found is not None and found <= most_bytes:
            fits = middle
        else:
            over = middle
    raise ValueError(
        f"no step scale gives a model of {most_bytes - SLACK_BYTES:,} to {most_bytes:,} bytes: the "
        f"largest that fits has {size:,}, at a step scale of {scale:g}"
    )


def _around(sizes: Sizes, most_bytes: int, start: float) -> tuple[float, float | None]:
    """An octave that fits, and one that is too fine or None where even the finest fits."""
    _, size = sizes.at(start)
    assert size is not None
    fits = size <= most_bytes
    last, reach = start, 0.25
    least = size
    while reach <= _FURTHEST:
        here = start + (-reach if fits else reach)
        _, found = sizes.at(here)
        if found is None and not fits:
            break
        if (found is not None and found <= most_bytes) != fits:
            return (last, here) if fits else (here, last)
        least, last, reach = found or least, here, 2 * reach
    if fits:
        return last, None
    raise ValueError(
        f"{most_bytes:,} bytes are too few for this model: with the coarsest steps it has {least:,}"
    )


def _between(sizes: Sizes, fits: float, over: float, most_bytes: int) -> float:
    """Where a line through both sizes meets the middle of what is allowed; kept off the ends."""
    below, above = sizes.at(fits)[1], sizes.at(over)[1]
    if below is None or above is None or above <= below:
        return (fits + over) / 2
    part = (most_bytes - SLACK_BYTES / 2 - below) / (above - below)
    return fits + (over - fits) * min(max(part, 0.02), 0.98)
