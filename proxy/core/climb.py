"""How the cap of streams is learnt: it climbs as long as answers begin about as early as they used to.

A stream's first byte waits for the prompts before it, not for the slots: it tells little below the number
that the upstream serves at once, and all above it, where calls begin to queue up there. By Little's law those
in line there are as large a part of all in flight as the wait in line is of the time that a permit is held:
so it is known how far to go back.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Final

from proxy.core.leg import Leg
from proxy.core.usual import Usual

TOLERANCE: Final = log(1.5)
"""Longer by this factor is late (Gradient2's tolerance)."""

SURE: Final = 2.0
"""And longer by so many standard errors: prompts differ in length."""

MOST_LATE: Final = 0.7
"""And so large a part of the leg must be late: one long prompt delays those behind it, a line all."""

FIRST_PACE: Final = log(2.0)
"""The first step, as a logarithm: it doubles (TCP's slow start)."""

SLOWING: Final = 0.6
"""What is left of a step in the next one: the farther it went, the nearer the knee."""

LEAST_PACE: Final = 0.2

FARTHEST_BACK: Final = 0.35
"""As a logarithm: who goes too far back grants nothing until so many have ended."""

FIRST_REST, SECOND_REST, LONGEST_REST = 1, 4, 12
"""Legs on time, just below a number at which answers were late, before that is tried again. Once may be one
long prompt; the more often they were late there, the longer."""

NEAR: Final = 1.1
"""Up to so far above that number it goes on by one: a line is seen late, and a long one costs those in it."""

NO_DOUBT: Final = 0.12
"""Who waits for so much of the time that a call takes stands in a line. Less may be one long prompt: the
first climb looks twice before it ends."""

UNMOVED: Final = 0.7
"""Answers that wait for so much of what they did wait for something else than for each other."""

IN_VAIN: Final = 3
"""Legs in a row that were late, of numbers that fell, tell so."""


class Climb:
    """Where to go from one leg to the next. `is_new`: nothing has said no yet."""

    __slots__ = (
        "_before", "_first", "_first_s", "_is_again", "_known", "_late", "_pace", "_rest", "_rested", "_top",
        "is_new",
    )  # fmt: skip

    def __init__(self) -> None:
        self.is_new = True
        self._pace = FIRST_PACE
        self._top = 0.0  # where answers were late last; 0: nowhere yet
        self._rest = FIRST_REST
        self._rested = 0  # legs on time just below it
        self._known = 0.0  # the same, and not forgotten when it is tried again
        self._before = 0.0  # the one before, if it was farther up
        self._is_again = False  # is that one the top again?
        self._late = 0  # legs in a row
        self._first, self._first_s = 0, 0.0  # the number of the first of them, and how late it was

    def slow_down(self) -> None:
        """From here on in small steps: the upstream has refused."""
        self.is_new = False
        self._pace = 0.0
        self._top, self._known, self._before, self._rested, self._late = 0.0, 0.0, 0.0, 0, 0

    def is_late(self, leg: Leg, usual: Usual) -> bool:
        """Did nearly all answers begin later than usual?"""
        if not usual.calls or leg.late < MOST_LATE * leg.counted:
            return False
        error = sqrt(usual.scatter / leg.counted + usual.scatter / usual.calls)
        return leg.level - usual.level > max(TOLERANCE, SURE * error)

    def next(self, leg: Leg, usual: Usual) -> float:
        """The number of calls in flight to go to, as a logarithm."""
        if self.is_late(leg, usual):
            return self._back(min(leg.slots, round(leg.in_flight)), leg, usual)
        usual.remember(leg)
        self._late = 0
        return log(leg.slots) + self._step(leg.slots)

    def _step(self, number: int) -> float:
        least = 1.0 / number
        if not self._top:
            if number <= NEAR * self._known:
                self._pace = least
                return least
            pace = max(least, self._pace)
            self._pace = max(LEAST_PACE, SLOWING * pace) if self.is_new else min(LEAST_PACE, 2.0 * pace)
            return pace
        left = log(self._top / number)
        if left > 1.5 * least:  # half of the way that is left
            return max(least, left / 2)
        self._rested += 1
        if self._rested < self._rest:
            return 0.0
        self._top, self._before, self._rested = self._before, 0.0, 0
        self._is_again = self._top > 0.0
        if self._is_again:
            self._known = self._top
        self._pace = 2.0 * least
        return least

    def _back(self, number: int, leg: Leg, usual: Usual) -> float:
        """To where nobody stands in line, if it is a line that they wait in."""
        waits_s = exp(leg.level) - exp(usual.level)
        share = waits_s / max(usual.took_s, 2.0 * waits_s)
        self._late += 1
        if self._late == 1:
            self._first, self._first_s = number, waits_s
            if self.is_new and share < NO_DOUBT:
                return log(leg.slots)
        elif waits_s <= UNMOVED * self._first_s:  # it helps
            self._late, self._first_s = 1, waits_s
        elif self._late >= IN_VAIN:
            usual.replace(leg)
            self.is_new = False
            self._top, self._before, self._pace, self._late = 0.0, 0.0, LEAST_PACE, 0
            return log(self._first)
        was_new, self.is_new = self.is_new, False
        near = self._known / NEAR <= number <= NEAR * self._known
        self._rest = min(LONGEST_REST, max(SECOND_REST, 2 * self._rest)) if near else FIRST_REST
        back = max(1.0 / number, min(FARTHEST_BACK, share))
        top = float(number)
        if not was_new and number > self._known:  # at first only short calls have ended to reckon with
            top = min(top, number * exp(-back) + 1.0)
        self._before = 0.0 if self._is_again or self._known <= NEAR * top else self._known
        self._is_again = False
        self._top, self._known = top, 0.0 if was_new else top
        self._rested = 0
        return log(number) - back
