"""What nearly all of a row of sizes stay below, learnt one by one and forgotten slowly.

A histogram whose bounds grow by a factor: bounded in memory, with a relative error that is stated, as in
HdrHistogram and DDSketch (Masson et al., VLDB 2019). P² (Jain & Chlamtac 1985) holds less and never forgets.
"""

from __future__ import annotations

from math import log
from typing import Final

GROWTH: Final = 1.3
"""From one bound to the next: a quantile is told too high by 30 % at most, never too low."""

BOUNDS: Final = 72
"""1.3 to the 71st is 10^8, and no answer has so many tokens."""

FADING: Final = 1.01
"""Each size weighs so much more than the one before it: the last hundred make 63 % of the weight."""

HEAVIEST: Final = 1e12

_BOUNDS: Final = [float(GROWTH**at) for at in range(BOUNDS)]
_PER_BOUND: Final = 1.0 / log(GROWTH)


def bound_of(size: float) -> int:
    """Which bound a size stays below: asked once for all the rows that it is added to."""
    return 0 if size < 1.0 else min(BOUNDS - 1, 1 + int(log(size) * _PER_BOUND))


class Sizes:
    """The sizes seen under one key: their mean, and any quantile. `seen` is how many there were."""

    __slots__ = ("_counts", "_sum", "_top", "_total", "_weight", "seen")

    def __init__(self) -> None:
        self._counts: list[float] = []
        self._top = -1
        self._weight = 1.0
        self._total = 0.0
        self._sum = 0.0
        self.seen = 0

    def add(self, size: float, at: int) -> None:
        """One more, whose bound is the one `at`."""
        if at > self._top:
            self._counts += [0.0] * (at + 1 - len(self._counts))
            self._top = at
        self._weight *= FADING
        if self._weight > HEAVIEST:
            self._scale_down()
        self._counts[at] += self._weight
        self._total += self._weight
        self._sum += self._weight * size
        self.seen += 1

    @property
    def mean(self) -> float:
        """The late ones weigh more; 0.0 before the first."""
        return self._sum / self._total if self._total else 0.0

    def quantile(self, share: float) -> float:
        """What `share` of all sizes stay below, rounded up to a bound; 0.0 before the first."""
        above = self._total * (1.0 - share)
        for at in range(self._top, -1, -1):
            above -= self._counts[at]
            if above < 0.0:
                return _BOUNDS[at]
        return 0.0

    def _scale_down(self) -> None:
        self._counts = [count / self._weight for count in self._counts]
        self._total /= self._weight
        self._sum /= self._weight
        self._weight = 1.0
        while self._top > 0 and self._counts[self._top] < 1.0 / HEAVIEST:
            self._top -= 1  # what was last seen thousands of sizes ago
        del self._counts[self._top + 1 :]
