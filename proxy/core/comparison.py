"""Two neighbouring legs compared: where between them, or beyond, the times begin to grow with the calls."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Final

from proxy.core.leg import Leg
from proxy.core.usual import Usual

ALIKE: Final = 0.015
"""Legs so little apart, as a logarithm, say nothing."""


class Comparison:
    """`apart` is how far the legs are from each other, `error` the standard error of their difference in
    time, `share` how much of the distance the times have grown: 0 below the knee, 1 above. `found` is the
    knee. All as logarithms. `is_below`: it is at least half a call below the lower leg.
    """

    __slots__ = ("apart", "error", "found", "is_below", "share")

    def __init__(self, low: Leg, high: Leg, usual: Usual) -> None:
        self.apart = apart = log(high.in_flight / low.in_flight)
        self.error = error = sqrt(usual.scatter * (1.0 / low.counted + 1.0 / high.counted))
        self.share = 0.5
        self.found = log(high.in_flight)
        self.is_below = False
        if apart < ALIKE:
            return
        grown = high.mean - low.mean
        self.share = grown / apart
        if self.share < 0.5 or low.level_of_all < usual.level:
            usual.remember(low)
        # The less can be said of the difference, the more it is believed to be a little less than it would
        # be at the knee: so the cap creeps up where times scatter, until they are gross.
        sure = apart * apart / (apart * apart + 4.0 * error * error)
        likely = sure * min(1.5 * apart, max(-0.5 * apart, grown)) + (1.0 - sure) * 0.55 * apart
        self.found -= likely
        crowd = low.level_of_all - usual.level - 2.0 * sqrt(usual.scatter / low.counted)
        if crowd > 0:  # the lower number is above the knee as well
            self.found -= min(crowd, apart / 2)
        self.is_below = exp(self.found) < low.in_flight - 0.5

    def telling(self, neutral: float) -> float:
        """Above 0 where the times have grown by less than this share, in standard errors."""
        return max(-2.5, min(2.5, (neutral - min(1.0, self.share)) * self.apart / self.error))

    def beyond(self, share: float) -> float:
        """By how much the times have grown by more than this share, in standard errors."""
        return (self.share - share) * self.apart / self.error
