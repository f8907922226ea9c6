"""How far the two numbers between which a learnt cap goes back and forth are apart."""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import Final

from proxy.core.comparison import Comparison

WIDEST: Final = 0.5
"""The two numbers are at most so far apart, as a logarithm: a factor of 1.65."""

NARROWEST: Final = 0.06
"""And at least so far: 2 of 32."""

WATCHFUL: Final = 0.2
"""And so far where the cap was much higher not long ago: what has gone comes back."""

NEAR: Final = 0.3
"""And so far where the knee has just been passed by doubling."""

BELOW: Final = 1 / 3
"""So much of the distance lies below the knee: to be below costs throughput, to be above a little time."""

NEUTRAL: Final = 1 - BELOW
"""With the knee there, times grow by this share of the distance."""

SETTLED: Final = -0.6
"""With a trend below this the knee is at the lower of two neighbours: there it stays."""

LEGS: Final = 5
"""For so many legs in a row, lest it be above for half of the time; that there is room above again is seen
as much later."""


class Steps:
    """`size` is how far, as a logarithm; `trend` is above 0 while the knee is found above again and again."""

    __slots__ = ("_legs", "size", "trend")

    def __init__(self) -> None:
        self.size = WIDEST
        self.trend = 0.0
        self._legs = 0  # in a row at the lower of two neighbours

    def begin(self, size: float) -> None:
        """Look for the knee anew."""
        self.size, self.trend = size, 0.0

    @staticmethod
    def least(scatter: float, calls: float, *, far: bool) -> float:
        """Two standard errors of the difference of two legs of so many calls. `far`: much has gone."""
        least = WATCHFUL if far else NARROWEST
        return min(WIDEST, max(least, 2.0 * sqrt(2.0 * scatter / calls)))

    def is_wide(self, least: float) -> bool:
        """Is it a search?"""
        return self.size > 1.5 * least

    def weigh(self, seen: Comparison, neutral: float, least: float) -> float:
        """How much of the way to the knee that was found is gone: little, unless it is found there again."""
        self.trend += 0.4 * (seen.telling(neutral) - self.trend)
        return 1.0 if self.is_wide(least) or abs(self.trend) > 1.2 else 0.4

    def adapt(self, seen: Comparison, least: float) -> None:
        """Farther where the knee moves, closer where it stays: between neighbours it cannot be found."""
        if self.trend > 0.85 or (self.trend < -1.0 and seen.is_below):
            self.size *= 1.5
        elif seen.share > 0.4 or not self.is_wide(least):
            self.size *= 0.7
        self.size = min(WIDEST, max(self.size, least))

    def next(self, slots: int, knee: float, share: float, least: float) -> int:
        """From `slots` to the other side of the knee; in a search, further the same way while it is not yet
        passed; and again where it is, if that is the lower of two neighbours and settled.

        A knee is a whole number, and what is learnt of it is a little less: between 9 and 10 it is 10 that is
        below, and were it tried as the higher of two, 9 would be the other.
        """
        low = round(exp(knee - self.size * BELOW))
        high = max(low + 1, ceil(exp(knee + self.size * (1.0 - BELOW))))
        up = slots <= max(low, int(exp(knee)))
        if self.is_wide(least):
            up = share < 0.35 or (up and share <= 0.9)
        self._legs += 1
        if up and high - low == 1 and self.trend < SETTLED and self._legs < LEGS:
            return slots
        self._legs = 0
        return max(high, slots + 1) if up else min(low, slots - 1)
