"""How far the two numbers between which a learnt cap goes back and forth are apart."""

from __future__ import annotations

from math import sqrt
from typing import Final

from proxy.core.comparison import Comparison

WIDEST: Final = 0.5
"""The two numbers are at most so far apart, as a logarithm: a factor of 1.65."""

NARROWEST: Final = 0.06
"""And at least so far: 2 of 32."""

WATCHFUL: Final = 0.2
"""And so far where the cap was much higher not long ago: what has gone comes back."""


class Steps:
    """`size` is how far, as a logarithm; `trend` is above 0 while the knee is found above again and again."""

    __slots__ = ("size", "trend")

    def __init__(self) -> None:
        self.size = WIDEST
        self.trend = 0.0

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
        """Farther where the knee moves, closer where it stays."""
        if not -1.0 <= self.trend <= 0.85:
            self.size *= 1.5
        elif seen.share > 0.4 or not self.is_wide(least):
            self.size *= 0.7
        self.size = min(WIDEST, max(self.size, least))
