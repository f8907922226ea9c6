"""Refusals by the upstream itself, and the number of calls in flight at which they came."""

from __future__ import annotations

from math import log
from typing import Final

from proxy.core.verdict import OVERLOADED, Outcome

BACK: Final = log(0.8)
"""What one refusal by the upstream does to the cap, as a logarithm."""

WALL_S: Final = 30.0
"""For so long the cap stays below the number at which the upstream refused."""

FAIR_REFUSALS: Final = 0.2
"""Of the calls that end, a smaller share of 503 and timeouts is illness: to send fewer cures nothing."""

FEWEST: Final = 20
"""Of fewer calls the share says nothing."""

REACHED: Final = 0.8
"""With a smaller part of the cap in flight it is not the cap that sends too many, but a rate is exceeded."""


class Wall:
    """What was refused since `round` was last told, and whether that is a reason to send fewer at once.

    `held` is how many were in flight at the last grant: keep it up to date. Before the first it is as if all
    were.
    """

    __slots__ = ("_at", "_ended", "_number", "_proven", "_refused", "_until", "held")

    def __init__(self, held: int) -> None:
        self.held = held
        self._ended = self._refused = 0
        self._at, self._proven = 0.0, True
        self._number, self._until = 0, 0.0

    def round(self) -> None:
        """Count anew."""
        self._ended = self._refused = 0

    def answered(self, granted_at: float) -> None:
        """A call of that time was answered well."""
        if granted_at >= self._at:
            self._proven = True

    def ended(self) -> None:
        """A call ended, and was not refused."""
        self._ended += 1

    def refused(self, granted_at: float, outcome: Outcome, slots: int) -> bool:
        """A call was. Is that a reason to send fewer?

        Once in a round trip: not again before a call that went since was answered well. An upstream that
        answers nobody is no crowd but an outage, which is the breaker's: the cap must be what it was when it
        comes back.
        """
        self._ended += 1
        self._refused += 1
        if granted_at < self._at or not self._proven or self.held < REACHED * slots:
            return False
        return outcome is OVERLOADED or (
            self._ended >= FEWEST and self._refused > FAIR_REFUSALS * self._ended
        )

    def cut(self, slots: int, settles_s: float, now: float) -> None:
        """Fewer than `slots` go from now on, which has its effect after so long."""
        self._number, self._until = slots, now + WALL_S
        self._at, self._proven = now + settles_s, False

    def below(self, most: int, now: float) -> int:
        """The highest number to be tried, at most `most`."""
        return most if now >= self._until else min(most, self._number - 1)

    def outage(self) -> int:
        """It is down: what it refused since it last answered was no crowd. The number before that, or 0."""
        if self._proven:
            return 0
        self._until, self._proven = 0.0, True
        return self._number
