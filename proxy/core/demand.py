"""How much a shared key is asked for of late: what a replica's slice of it is cut by."""

from __future__ import annotations

from typing import Final

TRIP_S: Final = 0.75
"""Between two trips that nothing hurries: a key asked for 100 times a second costs 0.013 trips a call."""

HOT: Final = 1.0
"""Calls per trip from which a key gets a slice with a rate. Of colder ones each call is paid by a trip."""

LEAST_SPAN_S: Final = 0.05
"""A demand is not measured over less."""

ENOUGH: Final = 8
"""So many calls in less time tell how much is asked for at least."""

LATEST: Final = 0.5
"""Weight of the latest demand."""


class Demand:
    """How much is asked for a second, of late, in calls and in the bucket's unit; and the dearest call."""

    __slots__ = ("_asked", "_calls", "_dearest", "_known", "_since", "calls_per_s", "dearest", "per_s")

    def __init__(self, now: float) -> None:
        self._since = now
        self._asked = 0.0
        self._calls = 0
        self._dearest = 0.0
        self._known = False
        self.per_s = 0.0
        self.calls_per_s = 0.0
        self.dearest = 0.0

    def add(self, cost: float) -> None:
        """One call asked for `cost`."""
        self._asked += cost
        self._calls += 1
        self._dearest = max(self._dearest, cost)

    def look(self, now: float) -> None:
        """Take what came since the last look into account; of too short a time, only that it came."""
        span_s = now - self._since
        if span_s < (LEAST_SPAN_S if not self._known else TRIP_S / 2):
            if self._calls >= ENOUGH:  # it grows: each trip is to bring more than the one before
                self.per_s = max(self.per_s, self._asked / TRIP_S)
                self.calls_per_s = max(self.calls_per_s, self._calls / TRIP_S)
                self.dearest = max(self.dearest, self._dearest)
            return
        weight = LATEST if self._known else 1.0
        self.per_s += weight * (self._asked / span_s - self.per_s)
        self.calls_per_s += weight * (self._calls / span_s - self.calls_per_s)
        self.dearest = max(self._dearest, self.dearest / 2)
        self._known = self.calls_per_s * TRIP_S >= HOT / 2
        self._since = now
        self._asked = 0.0
        self._calls = 0
        self._dearest = 0.0

    @property
    def is_hot(self) -> bool:
        """Is it asked for often enough to be worth a slice of its own?"""
        return self.calls_per_s * TRIP_S >= HOT
