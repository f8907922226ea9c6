"""How a learnt cap begins: with every leg twice as many calls at once, until answers come later.

TCP's slow start (RFC 5681 §3.1), left by delay as HyStart does (RFC 9406). But where TCP begins with next to
nothing, a cap begins with enough to serve a fleet, and that may be far too many for a small upstream: so half
of it is tried first, and half of that, as long as answers come earlier.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Final

from proxy.core.leg import FULL, Leg
from proxy.core.usual import Usual

LATER: Final = log(1.2)
"""Answers that come later by this factor have waited for each other."""

SURE: Final = 3.0
"""And later by so many standard errors."""

CERTAIN: Final = 5.0
"""If not by so many, fewer are tried once more: perhaps those were early by chance."""

IN_PROPORTION: Final = 0.9
"""Answers that came earlier by so much of the distance may do so still with even fewer."""

ONSET: Final = 0.3
"""Of the calls that were added since the last leg none found all others in flight."""

SCATTER: Final = 0.5
DOUBTS: Final = 12
"""The variance of the times' logarithms before any was seen, which counts as so many calls."""


class SlowStart:
    """`is_on` until the knee was passed, once and for all.

    `below` is then a leg that is known not to be above the knee: with fewer yet no answer came earlier. None:
    there is none.
    """

    __slots__ = ("_best", "_calls", "_falls", "_is_doubted", "_sum", "below", "is_on")

    def __init__(self) -> None:
        self.is_on = True
        self.below: Leg | None = None
        self._best = 0  # the highest number of calls that did not wait for each other, as far as is known
        self._falls = False  # the first was too high
        self._is_doubted = False
        self._calls, self._sum = DOUBTS, DOUBTS * SCATTER

    @property
    def full(self) -> float:
        """The share of a leg's calls that must have found all others in flight."""
        return ONSET if self.is_on else FULL

    @staticmethod
    def leg_calls(slots: int) -> int:
        """The sample: half of the places were given twice, so that it is known how long one is held."""
        return slots + slots // 2

    def next(self, leg: Leg, usual: Usual) -> float:
        """The number of calls in flight to go to, as a logarithm: the knee, if that is passed now."""
        if not self._best:
            self._best = leg.slots
            self._note(leg, usual)
            return log(leg.slots / 2.0)
        later = leg.level_of_all - usual.level
        error = sqrt(self._sum / self._calls * (1.0 / leg.counted + 1.0 / usual.calls))
        least = max(LATER, SURE * error)
        if leg.slots < self._best or self._falls:
            return self._fall(leg, usual, -later, least)
        if later > least:
            if later < CERTAIN * error and not self._is_doubted:
                self._is_doubted = True
                return log(self._best)
            self.is_on = False
            return log(max(self._best, leg.in_flight * exp(-later)))  # Little's law
        if leg.slots > self._best:
            self._is_doubted = False
        self._best = leg.slots
        self._note(leg, usual)
        return log(2.0 * leg.slots)

    def _fall(self, leg: Leg, usual: Usual, earlier: float, least: float) -> float:
        """Fewer were tried: was the number before too high, and is this one?"""
        higher, self._best = self._best, leg.slots
        if earlier > least:
            usual.replace(leg)
            if earlier > IN_PROPORTION * log(higher / leg.slots):
                self._falls, self.below = True, leg
                return log(leg.slots / 2.0)
        elif not self._falls:
            self._best = higher
            self._note(leg, usual)
            return log(2.0 * higher)
        if self.below is not None and (earlier > least or leg.slots >= self.below.slots):
            self.below = None  # it is above, or fewer were not allowed
        self.is_on = False
        return log(max(1.0, higher * exp(-max(0.0, earlier))))

    def _note(self, leg: Leg, usual: Usual) -> None:
        usual.remember(leg)
        self._calls += leg.counted
        self._sum += leg.counted * leg.variance
