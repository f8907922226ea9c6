"""Times are gross: is it the crowd, or the upstream itself? A lower number is tried, and another one."""

from __future__ import annotations

from math import exp, log
from typing import Final

from proxy.core.leg import Leg
from proxy.core.usual import Usual

GROSS: Final = log(1.5)
"""Times longer by this factor than they used to be are looked into at once."""

LESS: Final = log(2.0)
"""Half as many are tried, or as few as would make up for it."""


class Check:
    """`tried` is the number of calls in flight at which times were gross, and `level` how long they were;
    0: nothing is checked. It is of the crowd if fewer wait less (Little's law: in proportion).
    """

    __slots__ = ("level", "tried")

    def __init__(self) -> None:
        self.tried = 0
        self.level = 0.0

    def begin(self, slots: int, level: float) -> None:
        """Times are gross among so many."""
        self.tried, self.level = slots, level

    def saw(self, leg: Leg, granted_at: float, level: float) -> None:
        """An answer began. Those to calls from before the leg show how gross times were in the end."""
        if granted_at < leg.at:
            self.level = max(self.level, level)

    def is_well(self, leg: Leg, usual: Usual) -> bool:
        """With this number times are as they used to be."""
        return leg.level_of_all - usual.level < GROSS / 2

    def is_crowd(self, leg: Leg) -> bool:
        """They are not, but fewer have waited less."""
        return self.level - leg.level > 0.5 * log(self.tried / leg.in_flight)

    def fewer(self, in_flight: float, longer: float) -> float:
        """The number to try where times are longer by so much, as a logarithm."""
        return in_flight * exp(-min(longer, LESS))
